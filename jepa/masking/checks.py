"""Checks that a strategy fits a grid, and that masks are well formed."""

import math

import torch
from torch import Generator

from jepa.config.imports import describe_error, imported
from jepa.masking import published
from jepa.masking.blocks import Blocks, block_size, context_windows, possible_block_sizes
from jepa.masking.configs import (
    BlockMaskConfig,
    CausalMaskConfig,
    FunctionMaskConfig,
    RandomMaskConfig,
    RandomTubeMaskConfig,
    Strategy,
    TubeMaskConfig,
)
from jepa.masking.masks import Masks
from jepa.masking.sampling import tube_blocks
from jepa.positions import Grid

MIN_CONTEXT = 0.1  # share of the grid that multi-block targets must leave as context; less is surely a mistake


def flaw_of(masks: Masks, batch_size: int, tokens: int) -> str:
    """The first flaw of a batch of masks over `tokens` tokens, as the end of a sentence; empty if well formed."""
    context, target = masks.context, masks.target
    if context.dim() != 2 or target.dim() != 3 or not len(context) == len(target) == batch_size:
        shapes = f"context {list(context.shape)} and target {list(target.shape)}"
        return f"{shapes} for {batch_size} samples; expected [B, Kc] and [B, M, Kt]"
    if context.dtype != torch.int64 or target.dtype != torch.int64:
        return f"indices of type {context.dtype} and {target.dtype}; expected int64"
    if not context.numel() or not target.numel():
        return "masks without context or without targets"
    if min(context.min(), target.min()) < 0 or max(context.max(), target.max()) >= tokens:
        return f"indices outside 0 to {tokens - 1}, the tokens of the grid"
    of_sample = tokens * torch.arange(batch_size).unsqueeze(1)  # makes indices of different samples distinct
    if torch.isin(context + of_sample, target.flatten(1) + of_sample).any():
        return "tokens that are context and target of the same sample, so that the context would reveal the target"
    if masks.parts and sum(masks.parts) != context.shape[1]:
        return f"parts {masks.parts} that do not add up to {context.shape[1]} context tokens"
    if masks.parts:  # indices ascend within each part only
        context, target = context.sort(dim=1).values, target.sort(dim=2).values
    if (context.diff(dim=1) <= 0).any() or (target.diff(dim=2) <= 0).any():
        return "indices that do not ascend or occur twice"
    return ""


def check_masking(grid: Grid, config: Strategy) -> None:
    """Raise ValueError if the strategy does not fit the grid; otherwise masks can always be drawn."""
    match config:
        case BlockMaskConfig():
            _check_block(grid, config)
        case TubeMaskConfig():
            _check_tube(grid, config)
        case RandomMaskConfig(ratio=0):  # a run that predicts tokens refuses it
            return
        case RandomMaskConfig():
            _check_split(round(config.ratio * math.prod(grid)), math.prod(grid), f"hiding {config.ratio:.0%}")
        case RandomTubeMaskConfig():
            space = math.prod(grid[-2:])
            _check_split(round(config.ratio * space), space, f"hiding {config.ratio:.0%}")
        case CausalMaskConfig():
            _check_causal(grid, config)
        case FunctionMaskConfig():
            _check_function(grid, config)


def _check_function(grid: Grid, config: FunctionMaskConfig) -> None:
    try:
        imported(config.function)
    except ValueError as error:
        raise ValueError(f"masking.function: {error}") from error
    try:
        masks, again = (config.draw(grid, 4, Generator().manual_seed(0)) for _ in range(2))
    except Exception as error:  # custom code may raise anything
        raise ValueError(
            f"masking.function: {config.function} fails on the grid {grid}: {describe_error(error)}"
        ) from error
    if not isinstance(masks, Masks):
        raise ValueError(
            f"masking.function: {config.function} returns a {type(masks).__name__}, not jepa.masking.Masks"
        )
    if flaw := flaw_of(masks, 4, math.prod(grid)):
        raise ValueError(f"masking.function: {config.function} returns {flaw}")
    if not (torch.equal(masks.context, again.context) and torch.equal(masks.target, again.target)):
        raise ValueError(f"masking.function: {config.function} draws other masks when its generator is reset")


def _check_split(part: int, whole: int, what: str) -> None:
    if not 0 < part < whole:
        split = f"{what} splits {whole} tokens into {part} and {whole - part}"
        raise ValueError(f"{split}; context and target need at least one each")


def _check_block(grid: Grid, config: BlockMaskConfig) -> None:
    if config.legacy == "ijepa" and (len(grid) != 2 or min(grid) < published.MIN_SIDE):
        raise ValueError(
            f"the masks of I-JEPA need a grid of 2 axes with at least {published.MIN_SIDE} tokens each, not {grid}"
        )
    tokens = math.prod(grid)
    largest = max(possible_block_sizes(grid, config.target_scale, config.target_aspect), key=math.prod)
    blocks = Blocks(grid, block_size(grid, config.context_scale[0], 1.0), largest, config.targets, joined=False)
    fewest = min(fewest for fewest, _ in context_windows(blocks))
    if fewest < MIN_CONTEXT * tokens:
        raise ValueError(
            f"{config.targets} target blocks of up to {config.target_scale[1]:.0%} can leave a context of {fewest} of "
            f"{tokens} tokens, less than {MIN_CONTEXT:.0%}; ask for fewer or smaller targets"
        )


def _check_tube(grid: Grid, config: TubeMaskConfig) -> None:
    if config.legacy == "vjepa" and len(grid) != 3:
        raise ValueError(f"the masks of V-JEPA need a grid of 3 axes, not {grid}")
    for size in possible_block_sizes(grid[-2:], (config.scale, config.scale), config.aspect):
        context_windows(tube_blocks(grid, config, size))


def _check_causal(grid: Grid, config: CausalMaskConfig) -> None:
    if config.axis >= len(grid):
        raise ValueError(f"axis {config.axis} does not exist: the grid has {len(grid)} axes, counted from 0")
    for cut in config.cut:
        tokens = grid[config.axis]
        _check_split(round(cut * tokens), tokens, f"a cut at {cut:.0%} of axis {config.axis}")
