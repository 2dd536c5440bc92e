"""Learning rate and weight decay as pure functions of the step: nothing to save or restore."""

import math
from typing import Annotated, Literal

from pydantic import Field

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
