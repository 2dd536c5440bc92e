"""Token positions: coordinates on a grid with any number of axes, as sin-cos tables or rotary angles."""

import torch
from torch import Tensor

Grid = tuple[int, ...]  # tokens along each axis: (rows, columns) for an image, (time, rows, columns) for a video


def grid_positions(grid: Grid, trained_grid: Grid | None = None) -> Tensor:
    """Coordinates of every token of a grid, last axis fastest: grid (g_1..g_A) -> float [N, A].

    With `trained_grid`, the grid is scaled to the extent of that one, so that an encoder sees another resolution at
    the coordinates of its training: cell centres (i + 1/2) * trained / new - 1/2.
    """
    trained_grid = trained_grid or grid
    axes = [
        (torch.arange(size, dtype=torch.float32) + 0.5) * (trained / size) - 0.5
        for size, trained in zip(grid, trained_grid, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


def sincos_table(positions: Tensor, dim: int, base: float = 10_000.0) -> Tensor:
    """Fixed sin-cos embedding of coordinates: [N, A] -> [N, dim] (Vaswani et al. 2017, sec. 3.5, per axis).

    Each axis gets an equal share of sin-cos pairs, the first axes one more if the shares are uneven. The last column
    of an odd `dim` is zero.
    """
    axes, pairs = positions.shape[1], dim // 2
    columns = []
    for axis in range(axes):
        share = pairs // axes + (axis < pairs % axes)
        angles = positions[:, axis, None] * _frequencies(share, base).to(positions)  # [N, share]
        columns += [angles.sin(), angles.cos()]
    table = torch.cat(columns, dim=1)
    return torch.nn.functional.pad(table, (0, dim - table.shape[1]))


def rotary_angles(positions: Tensor, head_dim: int, base: float = 10_000.0) -> Tensor:
    """Rotation angles of a head's channel pairs: [N, A] -> [N, head_dim // 2] (Su et al. 2021, per axis).

    Every axis rotates the same number of pairs; remaining pairs have angle 0, as in V-JEPA 2.
    """
    axes, pairs = positions.shape[1], head_dim // 2
    share = pairs // axes
    frequencies = _frequencies(share, base).to(positions)
    angles = (positions[:, :, None] * frequencies).flatten(1)  # [N, A * share]
    return torch.nn.functional.pad(angles, (0, pairs - angles.shape[1]))


def vjepa2_angles(positions: Tensor, head_dim: int, base: float = 10_000.0) -> Tensor:
    """Rotary angles as the released V-JEPA 2 applies them, one per channel: [N, A] -> [N, head_dim].

    Its code repeats the frequencies of an axis block by block although neighbouring channels form the pairs, so the two
    channels of a pair rotate by different angles. Only weights that were trained this way need it.
    """
    axes = positions.shape[1]
    share = head_dim // 2 // axes
    angles = positions[:, :, None] * _frequencies(share, base).to(positions)  # [N, A, share]
    twice = angles.repeat(1, 1, 2).flatten(1)  # [N, A * 2 share]
    return torch.nn.functional.pad(twice, (0, head_dim - twice.shape[1]))


def spread(positions: Tensor, sides: int = 16) -> Tensor:
    """Coordinates [N, A] whose last two axes, rows and columns, run from 0 to sides - 1 at any resolution.

    V-JEPA 2.1 scales them so, to the 16 x 16 tokens of its pretraining; time stays as it is.
    """
    low, high = positions.amin(dim=0), positions.amax(dim=0)
    scaled = (positions - low) * (sides - 1) / (high - low).clamp_min(1e-6)
    return torch.cat((positions[:, :-2], scaled[:, -2:]), dim=1)


def _frequencies(count: int, base: float) -> Tensor:
    return base ** (-torch.arange(count, dtype=torch.float32) / max(count, 1))
