"""Drawing masks on a grid with any number of axes.

Every placement that fits is equally likely. Context and targets are disjoint. All samples of a batch have the same
number of context tokens and of targets, which does not depend on the batch size (blocks.draw_blocks). All randomness
comes from the generator that is passed in. The `legacy` masks depart from this; see published.py.
"""

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor

from jepa.masking import published
from jepa.masking.blocks import Blocks, draw_block_size, draw_blocks, random_tokens, token_indices
from jepa.masking.configs import (
    BlockMaskConfig,
    CausalMaskConfig,
    FunctionMaskConfig,
    RandomMaskConfig,
    RandomTubeMaskConfig,
    Strategy,
    TubeMaskConfig,
)
from jepa.masking.groups import own_generator
from jepa.masking.masks import Masks
from jepa.positions import Grid


def sample_masks(grid: Grid, config: Strategy, batch_size: int, generator: Generator) -> Masks:
    """Draw the masks of a batch, or of one of its groups; the generator must be on the CPU."""
    masks = _every_target(grid, config, batch_size, generator)
    if config.predicted == 1:
        return masks
    count = max(1, round(config.predicted * masks.target.shape[2]))
    chosen = random_tokens(torch.ones_like(masks.target, dtype=torch.bool), count, own_generator(generator))
    return replace(masks, target=masks.target[chosen].view(*masks.target.shape[:2], count))


def _every_target(grid: Grid, config: Strategy, batch_size: int, generator: Generator) -> Masks:
    own = own_generator(generator)
    match config:
        case BlockMaskConfig(legacy="ijepa"):
            target_size = published.ijepa_block_size(grid, config.target_scale, config.target_aspect, generator)
            context_size = published.ijepa_block_size(grid, config.context_scale, (1.0, 1.0), generator)
            return Masks(*published.ijepa_masks(grid, context_size, target_size, config.targets, batch_size, own))
        case BlockMaskConfig():
            target_size = draw_block_size(grid, config.target_scale, config.target_aspect, generator)
            context_size = draw_block_size(grid, config.context_scale, (1.0, 1.0), generator)
            blocks = Blocks(grid, context_size, target_size, config.targets, joined=False)
            context, target = draw_blocks(blocks, batch_size, generator)
            return Masks(token_indices(context), token_indices(target))
        case TubeMaskConfig(legacy="vjepa"):
            size = published.vjepa_block_size(grid, config.scale, config.aspect, config.time_scale, generator)
            return Masks(*published.vjepa_masks(grid, size, config.blocks, batch_size, own))
        case TubeMaskConfig():
            size = draw_block_size(grid[-2:], (config.scale, config.scale), config.aspect, generator)
            context, target = draw_blocks(tube_blocks(grid, config, size), batch_size, generator)
            return _repeated(grid, context, target)
        case RandomMaskConfig() | RandomTubeMaskConfig():
            tokens = math.prod(grid[-2:] if isinstance(config, RandomTubeMaskConfig) else grid)
            every = torch.ones(batch_size, tokens, dtype=torch.bool)
            target = random_tokens(every, round(config.ratio * tokens), own)
            return _repeated(grid, ~target, target.unsqueeze(1))
        case CausalMaskConfig():
            low, high = config.cut
            cut = low + float(torch.rand((), generator=generator)) * (high - low)
            before = torch.zeros(grid, dtype=torch.bool)
            before.narrow(config.axis, 0, round(cut * grid[config.axis])).fill_(True)
            context = before.flatten().expand(batch_size, -1)
            return Masks(token_indices(context), token_indices(~context).unsqueeze(1))
        case FunctionMaskConfig():
            return config.draw(grid, batch_size, generator)


def tube_blocks(grid: Grid, config: TubeMaskConfig, size: Grid) -> Blocks:
    """Blocks on the whole grid, or on its last two axes alone if they span all axes before these."""
    space, before = grid[-2:], grid[:-2]
    if not before or round(config.time_scale * before[0]) == before[0]:
        return Blocks(space, space, size, config.blocks, joined=True)
    times = max(1, round(config.time_scale * before[0]))
    return Blocks(grid, grid, (times, *before[1:], *size), config.blocks, joined=True)


def _repeated(grid: Grid, in_context: Tensor, in_target: Tensor) -> Masks:
    """Masks from bool [B, n] and [B, M, n] over the last axes of a grid, repeated along the axes before."""
    context, target = (
        _repeat(token_indices(mask), mask.shape[-1], math.prod(grid)) for mask in (in_context, in_target)
    )
    return Masks(context, target)


def _repeat(indices: Tensor, period: int, tokens: int) -> Tensor:
    return (indices.unsqueeze(-2) + torch.arange(0, tokens, period).unsqueeze(-1)).flatten(-2)
