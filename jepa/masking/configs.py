"""Masks, and the settings of the strategies that draw them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Generator, Tensor

from jepa.config.imports import imported
from jepa.positions import Grid


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
