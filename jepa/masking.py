"""Which tokens are context and which are targets: strategies on a grid with any number of axes.

All of them: every placement that fits is equally likely, context and targets are disjoint, and samples of a batch have
equal lengths without regard to how many they are (masking_blocks.draw_scene). Randomness comes from a generator.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Generator, Tensor

from jepa import masking_legacy
from jepa.imports import imported, told
from jepa.masking_blocks import (
    Scene,
    block_size,
    context_windows,
    draw_block_size,
    draw_scene,
    place_blocks,
    possible_block_sizes,
    random_tokens,
    token_indices,
)
from jepa.positions import Grid

__all__ = [
    "BlockMaskConfig",
    "CausalMaskConfig",
    "FunctionMaskConfig",
    "MaskingConfig",
    "Masks",
    "RandomMaskConfig",
    "RandomTubeMaskConfig",
    "Strategy",
    "TubeMaskConfig",
    "check_masking",
    "flaw_of",
    "place_blocks",
    "sample_masks",
]

MIN_CONTEXT = 0.1  # share of the grid that multi-block targets have to leave: less is a misunderstanding


@dataclass(frozen=True, eq=False)
class Masks:
    """Per sample, which tokens are context and which are targets: indices (int64), ascending within each set.

    parts: where tokens are of several streams, how many of the context are of each, the same for every sample. draw:
    sets of masks of one step with the same number here see the same tokens of the streams that they both see.
    """

    context: Tensor  # [B, Kc]
    target: Tensor  # [B, M, Kt]
    parts: tuple[int, ...] = ()
    draw: int | None = None

    def __len__(self) -> int:
        return len(self.context)

    def __getitem__(self, samples: slice | list[int]) -> "Masks":
        """The masks of some samples, e.g. one process's share of a batch."""
        return replace(self, context=self.context[samples], target=self.target[samples])

    @staticmethod
    def concatenate(sets: Sequence["Masks"]) -> "Masks":
        """Sets of one shape as the masks of one batch: n times [B, ...] -> [n * B, ...]."""
        context, target = torch.cat([one.context for one in sets]), torch.cat([one.target for one in sets])
        return replace(sets[0], context=context, target=target)

    def to(self, device: torch.device | str) -> "Masks":
        """The same masks on a device; does not wait for the copy where memory is pinned."""
        pinned = self.context.is_pinned()
        context, target = (indices.to(device, non_blocking=pinned) for indices in (self.context, self.target))
        return replace(self, context=context, target=target)

    def pin_memory(self) -> "Masks":
        """The same masks in pinned memory; a DataLoader calls this."""
        return replace(self, context=self.context.pin_memory(), target=self.target.pin_memory())


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"a range goes from low to high, not from {ends[0]} to {ends[1]}")
    return ends


Share = Annotated[float, Field(gt=0, le=1)]
ShareRange = Annotated[tuple[Share, Share], AfterValidator(_ascending)]
RatioRange = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascending)]


@dataclass(frozen=True, kw_only=True)
class BlockMaskConfig:
    """Several target blocks, and one large context block minus the targets (Assran et al. 2023, sec. 3).

    Block sizes are drawn once a batch, positions once a sample. Scales are shares of the grid, aspects the relative
    length of the last axis but one to the last. legacy: masks as the public code of I-JEPA draws them.
    """

    kind: Literal["block"] = "block"
    targets: PositiveInt = 4
    target_scale: ShareRange = (0.15, 0.2)
    target_aspect: RatioRange = (0.75, 1.5)
    context_scale: ShareRange = (0.85, 1.0)
    legacy: Literal["none", "ijepa"] = "none"


@dataclass(frozen=True, kw_only=True)
class TubeMaskConfig:
    """The union of blocks is the target, what they leave the context (Bardes et al. 2024, sec. 3.2).

    Blocks cover the share `scale` of the last two axes, all of those before, and `time_scale` of the first. On
    a grid of no more than two axes they are blocks in space. legacy: masks as the public code of V-JEPA draws them.
    """

    kind: Literal["tube"] = "tube"
    blocks: PositiveInt = 8
    scale: Share = 0.15
    aspect: RatioRange = (0.75, 1.5)
    time_scale: Share = 1.0
    legacy: Literal["none", "vjepa"] = "none"


@dataclass(frozen=True, kw_only=True)
class RandomMaskConfig:
    """Each sample hides `ratio` of its tokens, any with the same chance (He et al. 2022)."""

    kind: Literal["random"] = "random"
    ratio: Share = 0.75


@dataclass(frozen=True, kw_only=True)
class RandomTubeMaskConfig:
    """As random, but drawn over the last two axes and repeated over those before (Tong et al. 2022)."""

    kind: Literal["random_tube"] = "random_tube"
    ratio: Share = 0.9


@dataclass(frozen=True, kw_only=True)
class CausalMaskConfig:
    """The context is what lies before a cut across `axis`, the target what follows; the cut is drawn once a batch.

    cut: where, as a share of the axis; uniform between two ends, which may be the same.
    """

    kind: Literal["causal"] = "causal"
    axis: NonNegativeInt = 0
    cut: ShareRange = (0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class FunctionMaskConfig:
    """A strategy of one's own: package.module:function, (grid, batch_size, generator, **options) -> Masks."""

    kind: Literal["function"] = "function"
    function: str
    options: dict[str, Any] = field(default_factory=dict)

    def draw(self, grid: Grid, batch_size: int, generator: Generator) -> Masks:
        """Masks of a batch, as the function gives them."""
        masks: Masks = imported(self.function)(grid, batch_size, generator, **self.options)
        return masks


Strategy = (
    BlockMaskConfig | TubeMaskConfig | RandomMaskConfig | RandomTubeMaskConfig | CausalMaskConfig | FunctionMaskConfig
)
MaskingConfig = Annotated[Strategy, Field(discriminator="kind")]


def sample_masks(grid: Grid, config: Strategy, batch_size: int, generator: Generator) -> Masks:
    """Masks of a batch, drawn with the generator (on the CPU)."""
    match config:
        case BlockMaskConfig(legacy="ijepa"):
            target_size = masking_legacy.ijepa_block_size(grid, config.target_scale, config.target_aspect, generator)
            context_size = masking_legacy.ijepa_block_size(grid, config.context_scale, (1.0, 1.0), generator)
            return Masks(
                *masking_legacy.ijepa_masks(grid, context_size, target_size, config.targets, batch_size, generator)
            )
        case BlockMaskConfig():
            target_size = draw_block_size(grid, config.target_scale, config.target_aspect, generator)
            context_size = draw_block_size(grid, config.context_scale, (1.0, 1.0), generator)
            scene = Scene(grid, context_size, target_size, config.targets, joined=False)
            context, target = draw_scene(scene, batch_size, generator)
            return Masks(token_indices(context), token_indices(target))
        case TubeMaskConfig(legacy="vjepa"):
            size = masking_legacy.vjepa_block_size(grid, config.scale, config.aspect, config.time_scale, generator)
            return Masks(*masking_legacy.vjepa_masks(grid, size, config.blocks, batch_size, generator))
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


def flaw_of(masks: Masks, batch_size: int, tokens: int) -> str:
    """What keeps masks of a batch over so many tokens from being well formed, in words; empty where they are."""
    context, target = masks.context, masks.target
    if context.dim() != 2 or target.dim() != 3 or not len(context) == len(target) == batch_size:
        shapes = f"context {list(context.shape)} and target {list(target.shape)}"
        return f"{shapes} for {batch_size} samples; they have to be [B, Kc] and [B, M, Kt]"
    if context.dtype != torch.int64 or target.dtype != torch.int64:
        return f"indices of type {context.dtype} and {target.dtype}; they have to be int64"
    if not context.numel() or not target.numel():
        return "a set without context or without targets"
    if min(context.min(), target.min()) < 0 or max(context.max(), target.max()) >= tokens:
        return f"indices beyond 0 to {tokens - 1}, the tokens of the grid"
    of_sample = tokens * torch.arange(batch_size).unsqueeze(1)  # tells tokens of different samples apart
    if torch.isin(context + of_sample, target.flatten(1) + of_sample).any():
        return "tokens that are context and target of a sample at once: what is to be predicted would be seen"
    if masks.parts and sum(masks.parts) != context.shape[1]:
        return f"parts {masks.parts} that do not add up to {context.shape[1]} context tokens"
    if not masks.parts and ((context.diff(dim=1) <= 0).any() or (target.diff(dim=2) <= 0).any()):
        return "indices that are not ascending, or stand twice in a set"
    return ""


def check_masking(grid: Grid, config: Strategy) -> None:
    """Raise ValueError where a grid cannot hold what the config asks for; otherwise masks can always be drawn."""
    match config:
        case BlockMaskConfig():
            _check_block(grid, config)
        case TubeMaskConfig():
            _check_tube(grid, config)
        case RandomMaskConfig():
            _check_split(round(config.ratio * math.prod(grid)), math.prod(grid), f"hiding {config.ratio:.0%}")
        case RandomTubeMaskConfig():
            space = math.prod(grid[-2:])
            _check_split(round(config.ratio * space), space, f"hiding {config.ratio:.0%}")
        case CausalMaskConfig():
            if config.axis >= len(grid):
                raise ValueError(f"there is no axis {config.axis} to cut: the grid has {len(grid)}, counted from 0")
            for cut in config.cut:
                tokens = grid[config.axis]
                _check_split(round(cut * tokens), tokens, f"a cut at {cut:.0%} of axis {config.axis}")
        case FunctionMaskConfig():
            _check_function(grid, config)


def _check_function(grid: Grid, config: FunctionMaskConfig) -> None:
    try:
        masks = config.draw(grid, 4, Generator().manual_seed(0))
    except Exception as error:  # whatever somebody's code raises
        raise ValueError(f"masking.function: {config.function} fails on the grid {grid}: {told(error)}") from error
    if not isinstance(masks, Masks):
        raise ValueError(f"masking.function: {config.function} gives a {type(masks).__name__}, not jepa.masking.Masks")
    if flaw := flaw_of(masks, 4, math.prod(grid)):
        raise ValueError(f"masking.function: {config.function} gives {flaw}")


def _check_split(part: int, whole: int, what: str) -> None:
    if not 0 < part < whole:
        raise ValueError(
            f"{what} splits {whole} tokens into {part} and {whole - part}; context and target need one each"
        )


def _check_block(grid: Grid, config: BlockMaskConfig) -> None:
    if config.legacy == "ijepa" and (len(grid) != 2 or min(grid) < masking_legacy.MIN_SIDE):
        raise ValueError(
            f"the masks of I-JEPA need a grid of 2 axes from {masking_legacy.MIN_SIDE} tokens on, not {grid}"
        )
    tokens = math.prod(grid)
    largest = max(possible_block_sizes(grid, config.target_scale, config.target_aspect), key=math.prod)
    scene = Scene(grid, block_size(grid, config.context_scale[0], 1.0), largest, config.targets, joined=False)
    fewest = min(fewest for fewest, _ in context_windows(scene))
    if fewest < MIN_CONTEXT * tokens:
        raise ValueError(
            f"{config.targets} target blocks of up to {config.target_scale[1]:.0%} can leave a context of {fewest} of "
            f"{tokens} tokens, less than {MIN_CONTEXT:.0%}; ask for fewer or smaller targets"
        )


def _check_tube(grid: Grid, config: TubeMaskConfig) -> None:
    if config.legacy == "vjepa" and len(grid) != 3:
        raise ValueError(f"the masks of V-JEPA need a grid of 3 axes, not {grid}")
    for size in possible_block_sizes(grid[-2:], (config.scale, config.scale), config.aspect):
        context_windows(_tube_scene(grid, config, size))


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
