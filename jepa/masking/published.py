"""The masks of the public I-JEPA and V-JEPA code, biases included, for comparisons."""

import math

import torch
from torch import Generator, Tensor

from jepa.masking.blocks import Range, place_blocks, token_indices, union
from jepa.positions import Grid

MIN_CONTEXT = 10  # tokens: I-JEPA redraws a context of at most this size
TRIES = 20  # redraws before I-JEPA removes one target fewer from the context
MIN_SIDE = 5  # tokens: on smaller grids a context is hardly larger than MIN_CONTEXT


def ijepa_block_size(grid: Grid, scale: Range, aspect: Range, generator: Generator) -> Grid:
    """Rows and columns of a block, smaller than the grid; one random number sets both scale and aspect."""
    chance = float(torch.rand((), generator=generator))
    tokens = int(math.prod(grid) * (scale[0] + chance * (scale[1] - scale[0])))
    rows, columns = _rectangle(tokens, aspect[0] + chance * (aspect[1] - aspect[0]))
    return min(rows, grid[0] - 1), min(columns, grid[1] - 1)


def vjepa_block_size(grid: Grid, scale: float, aspect: Range, time_scale: float, generator: Generator) -> Grid:
    """Frames, rows and columns of a block."""
    frames, height, width = grid
    chance = float(torch.rand((), generator=generator))
    rows, columns = _rectangle(int(height * width * scale), aspect[0] + chance * (aspect[1] - aspect[0]))
    return max(1, int(frames * time_scale)), min(rows, height), min(columns, width)


def ijepa_masks(
    grid: Grid, context_size: Grid, target_size: Grid, targets: int, batch_size: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Multi-block masks -> context [B, Kc], target [B, M, Kt]; Kc is the smallest context of the batch.

    The last row and column are never used, and longer contexts lose their last tokens in raster order. A context with
    too few tokens is redrawn; after `TRIES` redraws, one target fewer is removed from it, and so on.
    """
    blocks = _place_without_last(grid, target_size, (batch_size, targets), generator)
    context = torch.zeros(batch_size, math.prod(grid), dtype=torch.bool)
    for removed in range(targets, -1, -1):
        free = ~blocks[:, :removed].any(dim=1)
        for _ in range(TRIES):
            small = (context.sum(dim=1) <= MIN_CONTEXT).nonzero().squeeze(1)
            if len(small):
                context[small] = _place_without_last(grid, context_size, (len(small),), generator) & free[small]
    return token_indices(_cut(context)), token_indices(blocks)


def vjepa_masks(grid: Grid, size: Grid, blocks: int, batch_size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Unions of blocks -> context [B, Kc], target [B, 1, Kt], each as long as the shortest of the batch.

    Longer ones lose their last tokens in raster order, i.e. in the last frames. An empty context is redrawn.
    """
    hidden = torch.ones(batch_size, math.prod(grid), dtype=torch.bool)
    while len(empty := hidden.all(dim=1).nonzero().squeeze(1)):
        hidden[empty] = union(place_blocks(grid, size, (len(empty), blocks), generator))
    return token_indices(_cut(~hidden)), token_indices(_cut(hidden)).unsqueeze(1)


def _rectangle(tokens: int, ratio: float) -> tuple[int, int]:
    """Rows and columns of a rectangle of about `tokens` tokens, `ratio` being rows over columns."""
    return max(1, round(math.sqrt(tokens * ratio))), max(1, round(math.sqrt(tokens / ratio)))


def _place_without_last(grid: Grid, size: Grid, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Place blocks as if the last row and column did not exist: bool [*shape, N]."""
    rows, columns = grid
    placed = place_blocks((rows - 1, columns - 1), size, shape, generator).unflatten(-1, (rows - 1, columns - 1))
    return torch.nn.functional.pad(placed, (0, 1, 0, 1)).flatten(-2)


def _cut(mask: Tensor) -> Tensor:
    """Cut every row to the first K True values, K being the fewest of any row: bool [B, N] -> bool [B, N]."""
    return mask & (mask.cumsum(dim=1) <= mask.sum(dim=1).min())
