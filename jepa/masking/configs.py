"""Settings of the masking strategies."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Generator

from jepa.config.effects import Use
from jepa.config.imports import imported
from jepa.masking.masks import Masks
from jepa.positions import Grid


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"a range goes from low to high, not from {ends[0]} to {ends[1]}")
    return ends


Share = Annotated[float, Field(gt=0, le=1)]
ShareRange = Annotated[tuple[Share, Share], AfterValidator(_ascending)]
RatioRange = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascending)]


@dataclass(frozen=True, kw_only=True)
class StrategyConfig:
    """Settings of every strategy.

    predicted: share of the tokens of each target that are predicted, drawn at random for each sample; the others are
    neither context nor target, which makes the predictor cheaper (CAPI, Darcet et al. 2025, predicts 5 %).
    """

    predicted: Share = 1.0


@dataclass(frozen=True, kw_only=True)
class BlockMaskConfig(StrategyConfig):
    """Several target blocks, and one large context block minus the targets (Assran et al. 2023, sec. 3).

    Block sizes are drawn once per batch, block positions once per sample. Scales are shares of the grid; aspects are
    ratios of the last but one axis to the last. legacy: reproduce the masks of the public I-JEPA code. legacy_group:
    consecutive samples whose contexts are cut to the shortest of them; there, the batch of one GPU (128). Null: the
    whole batch. Each forward pass holds samples of one group.
    """

    kind: Literal["block"] = "block"
    targets: PositiveInt = 4
    target_scale: ShareRange = (0.15, 0.2)
    target_aspect: RatioRange = (0.75, 1.5)
    context_scale: ShareRange = (0.85, 1.0)
    legacy: Literal["none", "ijepa"] = "none"
    legacy_group: PositiveInt | None = None

    def no_effect(self, use: Use) -> dict[str, str]:
        """Settings without effect, each with the reason."""
        found = {"legacy_group": "legacy is none"} if self.legacy == "none" else {}
        return found | ({"target_aspect": "the grid has one axis"} if len(use.modality.grid) < 2 else {})


@dataclass(frozen=True, kw_only=True)
class TubeMaskConfig(StrategyConfig):
    """The union of several blocks is the target, all other tokens are the context (Bardes et al. 2024, sec. 3.2).

    A block covers the share `scale` of the last two axes, the share `time_scale` of the first axis, and all of the axes
    between. On a grid of two axes it is a block in space. legacy: reproduce the masks of the public V-JEPA code.
    legacy_group: as for blocks; in that code 24, or 10 at 384 pixels.
    """

    kind: Literal["tube"] = "tube"
    blocks: PositiveInt = 8
    scale: Share = 0.15
    aspect: RatioRange = (0.75, 1.5)
    time_scale: Share = 1.0
    legacy: Literal["none", "vjepa"] = "none"
    legacy_group: PositiveInt | None = None

    def no_effect(self, use: Use) -> dict[str, str]:
        """Settings without effect, each with the reason."""
        found = {"legacy_group": "legacy is none"} if self.legacy == "none" else {}
        return found | ({"time_scale": "the grid has no time axis"} if len(use.modality.grid) < 3 else {})


@dataclass(frozen=True, kw_only=True)
class RandomMaskConfig(StrategyConfig):
    """Each sample hides the share `ratio` of its tokens, all equally likely (He et al. 2022).

    Where nothing is predicted, only views are compared, this drops tokens; 0 then keeps all.
    """

    kind: Literal["random"] = "random"
    ratio: Annotated[float, Field(ge=0, le=1)] = 0.75


@dataclass(frozen=True, kw_only=True)
class RandomTubeMaskConfig(StrategyConfig):
    """Random masks over the last two axes, repeated along the axes before (Tong et al. 2022)."""

    kind: Literal["random_tube"] = "random_tube"
    ratio: Share = 0.9


@dataclass(frozen=True, kw_only=True)
class CausalMaskConfig(StrategyConfig):
    """The context lies before a cut across `axis`, the target after it; the cut is drawn once per batch.

    cut: range of its position as a share of the axis, drawn uniformly; both ends may be equal.
    """

    kind: Literal["causal"] = "causal"
    axis: NonNegativeInt = 0
    cut: ShareRange = (0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class FunctionMaskConfig(StrategyConfig):
    """A custom strategy: `package.module:function`, (grid, batch_size, generator, **options) -> Masks."""

    kind: Literal["function"] = "function"
    function: str
    options: dict[str, Any] = field(default_factory=dict)

    def draw(self, grid: Grid, batch_size: int, generator: Generator) -> Masks:
        """Call the function -> masks of a batch."""
        masks: Masks = imported(self.function)(grid, batch_size, generator, **self.options)
        return masks


Strategy = (
    BlockMaskConfig | TubeMaskConfig | RandomMaskConfig | RandomTubeMaskConfig | CausalMaskConfig | FunctionMaskConfig
)
MaskingConfig = Annotated[Strategy, Field(discriminator="kind")]
