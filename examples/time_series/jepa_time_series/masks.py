"""Masks for samples that may lack channels: a part of every channel is context, the rest target."""

import torch
from torch import Generator

from jepa.masking import Masks
from jepa.positions import Grid


def within_channels(grid: Grid, batch_size: int, generator: Generator, ratio: float) -> Masks:
    """Hide the share `ratio` of each channel's segments, chosen uniformly: at least one and not all.

    Every device then has context and targets, whichever channels it has. Raises ValueError if that is impossible.
    """
    channels, segments = grid
    hidden = round(ratio * segments)
    if not 0 < hidden < segments:
        raise ValueError(f"hiding {ratio:.0%} of {segments} segments leaves a channel without targets or context")
    order = torch.rand(batch_size, channels, segments, generator=generator).argsort(dim=-1)  # drawn for each channel
    tokens = order + segments * torch.arange(channels).unsqueeze(1)
    context, target = tokens[..., hidden:].flatten(1), tokens[..., :hidden].flatten(1)
    return Masks(context.sort().values, target.sort().values.unsqueeze(1))
