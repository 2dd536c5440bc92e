"""Masks for samples that lack channels: some of every channel is seen, and some of it hidden."""

import torch
from torch import Generator

from jepa.masking import Masks
from jepa.positions import Grid


def within_channels(grid: Grid, batch_size: int, generator: Generator, ratio: float) -> Masks:
    """Hide the share `ratio` of each channel, any of its stretches with the same chance, at least one and not all.

    So a device has context and targets whichever channels it has. Raises ValueError for a grid without room for that.
    """
    channels, stretches = grid
    hidden = round(ratio * stretches)
    if not 0 < hidden < stretches:
        raise ValueError(f"hiding {ratio:.0%} of {stretches} stretches leaves a channel without targets or context")
    order = torch.rand(batch_size, channels, stretches, generator=generator).argsort(dim=-1)  # of every channel its own
    tokens = order + stretches * torch.arange(channels).unsqueeze(1)
    context, target = tokens[..., hidden:].flatten(1), tokens[..., :hidden].flatten(1)
    return Masks(context.sort().values, target.sort().values.unsqueeze(1))
