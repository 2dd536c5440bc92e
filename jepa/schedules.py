"""Learning rate, weight decay and momentum as pure functions of the step: nothing to save or restore."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Literal["cosine", "linear", "constant"]


def warmed_up(step: float, steps: float, warmup_steps: float, ends: tuple[float, float, float], decay: Decay) -> float:
    """Learning rate: linear from start to peak over the warm-up, then by `decay` to the final value at `steps`.

    ends: start, peak and final value; `constant` stays at the peak.
    """
    start, peak, final = ends
    if step < warmup_steps:
        return start + (peak - start) * step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1.0, steps - warmup_steps))
    match decay:
        case "cosine":
            return final + (peak - final) * (1 + math.cos(math.pi * progress)) / 2
        case "linear":
            return peak + (final - peak) * progress
        case "constant":
            return peak


def cosine(step: int, steps: float, start: float, end: float) -> float:
    """Half cosine from `start` at step 0 to `end` at `steps`, for weight decay."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2


@dataclass(frozen=True, kw_only=True)
class LinearMomentum:
    """Momentum of the target encoder, linear from `start` to `end` over the run (I-JEPA: .996 to 1)."""

    kind: Literal["linear"] = "linear"
    start: Fraction = 0.996
    end: Fraction = 1.0


@dataclass(frozen=True, kw_only=True)
class HalfLifeMomentum:
    """Momentum by half-life: the number of samples after which half of the old weights is left, at any batch size.

    The half-life grows geometrically from `start_samples` to `end_samples` over the run.
    """

    kind: Literal["half_life"] = "half_life"
    start_samples: PositiveFloat
    end_samples: PositiveFloat


MomentumConfig = Annotated[LinearMomentum | HalfLifeMomentum, Field(discriminator="kind")]


def teacher_momentum(step: int, steps: float, batch_size: int, config: LinearMomentum | HalfLifeMomentum) -> float:
    """Momentum of the target encoder at a step: the share of its old weights that it keeps."""
    progress = min(1.0, step / steps)
    match config:
        case LinearMomentum():
            return config.start + (config.end - config.start) * progress
        case HalfLifeMomentum():
            half_life = config.start_samples * (config.end_samples / config.start_samples) ** progress
            return float(0.5 ** (batch_size / half_life))
