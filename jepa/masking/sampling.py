"""Which tokens are context and which are targets: strategies on a grid with any number of axes.

All of them: every placement that fits is equally likely, context and targets are disjoint, and samples of a batch have
equal lengths without regard to how many they are (masking_blocks.draw_scene). Randomness comes from a generator.
"""

import math

import torch
from torch import Generator, Tensor

from jepa.masking import published
from jepa.masking.blocks import (
    Scene,
    draw_block_size,
    draw_scene,
    random_tokens,
    token_indices,
)
from jepa.masking.configs import (
    BlockMaskConfig,
    CausalMaskConfig,
    FunctionMaskConfig,
    Masks,
    RandomMaskConfig,
    RandomTubeMaskConfig,
    Strategy,
    TubeMaskConfig,
)
from jepa.positions import Grid


def sample_masks(grid: Grid, config: Strategy, batch_size: int, generator: Generator) -> Masks:
    """Masks of a batch, drawn with the generator (on the CPU)."""
    match config:
        case BlockMaskConfig(legacy="ijepa"):
            target_size = published.ijepa_block_size(grid, config.target_scale, config.target_aspect, generator)
            context_size = published.ijepa_block_size(grid, config.context_scale, (1.0, 1.0), generator)
            return Masks(*published.ijepa_masks(grid, context_size, target_size, config.targets, batch_size, generator))
        case BlockMaskConfig():
            target_size = draw_block_size(grid, config.target_scale, config.target_aspect, generator)
            context_size = draw_block_size(grid, config.context_scale, (1.0, 1.0), generator)
            scene = Scene(grid, context_size, target_size, config.targets, joined=False)
            context, target = draw_scene(scene, batch_size, generator)
            return Masks(token_indices(context), token_indices(target))
        case TubeMaskConfig(legacy="vjepa"):
            size = published.vjepa_block_size(grid, config.scale, config.aspect, config.time_scale, generator)
            return Masks(*published.vjepa_masks(grid, size, config.blocks, batch_size, generator))
        case TubeMaskConfig():
            size = draw_block_size(grid[-2:], (config.scale, config.scale), config.aspect, generator)
            context, target = draw_scene(_tube_scene(grid, config, size), batch_size, generator)
            return _repeated(grid, context, target)
        case RandomMaskConfig() | RandomTubeMaskConfig():
            drawn = grid[-2:] if isinstance(config, RandomTubeMaskConfig) else grid
            every = torch.ones(batch_size, math.prod(drawn), dtype=torch.bool)
            target = random_tokens(every, round(config.ratio * math.prod(drawn)), generator)
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


def _tube_scene(grid: Grid, config: TubeMaskConfig, size: Grid) -> Scene:
    """Blocks on the whole grid or, where they run through all of the axes before the last two, on those two alone."""
    space, before = grid[-2:], grid[:-2]
    if not before or round(config.time_scale * before[0]) == before[0]:
        return Scene(space, space, size, config.blocks, joined=True)
    times = max(1, round(config.time_scale * before[0]))
    return Scene(grid, grid, (times, *before[1:], *size), config.blocks, joined=True)


def _repeated(grid: Grid, context: Tensor, target: Tensor) -> Masks:
    """Masks from bool [B, n] and [B, M, n] over the last axes of a grid, the same all along the axes before."""
    seen, hidden = (_repeat(token_indices(mask), mask.shape[-1], math.prod(grid)) for mask in (context, target))
    return Masks(seen, hidden)


def _repeat(indices: Tensor, every: int, tokens: int) -> Tensor:
    return (indices.unsqueeze(-2) + torch.arange(0, tokens, every).unsqueeze(-1)).flatten(-2)
