"""Token positions as released weights expect them."""

import torch
from torch import Tensor

from jepa.positions import frequencies, sincos_table


def published_sincos(positions: Tensor, dim: int) -> Tensor:
    """The tables of I-JEPA (2 axes, columns before rows) and V-JEPA (3 axes, cut to the width): [N, A] -> [N, dim]."""
    axes = positions.shape[1]
    table = sincos_table(positions.flip(1) if axes == 2 else positions, 2 * axes * -(-dim // (2 * axes)))
    return table[:, :dim]


def vjepa2_angles(positions: Tensor, head_dim: int) -> Tensor:
    """Rotary angles as the released V-JEPA 2 applies them, one per channel: [N, A] -> [N, head_dim].

    Its code repeats the frequencies of an axis block by block although neighbouring channels form the pairs, so the two
    channels of a pair rotate by different angles. Only weights that were trained this way need it.
    """
    axes = positions.shape[1]
    share = head_dim // 2 // axes
    angles = positions[:, :, None] * frequencies(share).to(positions)  # [N, A, share]
    twice = angles.repeat(1, 1, 2).flatten(1)  # [N, A * 2 share]
    return torch.nn.functional.pad(twice, (0, head_dim - twice.shape[1]))


def spread(positions: Tensor, sides: int = 16) -> Tensor:
    """Coordinates [N, A] whose last two axes, rows and columns, run from 0 to sides - 1 at any resolution.

    V-JEPA 2.1 trains so, on the 16 x 16 tokens of its pretraining; time stays as it is. Its `torch.hub` scales those of
    the encoder only, so that the predictor it gives differs from the trained one at 384 pixels.
    """
    low, high = positions.amin(dim=0), positions.amax(dim=0)
    scaled = (positions - low) * (sides - 1) / (high - low).clamp_min(1e-6)
    return torch.cat((positions[:, :-2], scaled[:, -2:]), dim=1)
