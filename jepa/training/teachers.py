"""How the target encoder follows the context encoder in a stage: a pure function of the step."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import NonNegativeInt, PositiveFloat

from jepa.schedules import Fraction


@dataclass(frozen=True, kw_only=True)
class EmaTeacher:
    """Moving average (EMA) of the context encoder; its momentum per step is linear from `start` to `end`.

    I-JEPA: .996 to 1.
    """

    kind: Literal["ema"] = "ema"
    start: Fraction = 0.996
    end: Fraction = 1.0


@dataclass(frozen=True, kw_only=True)
class HalfLifeTeacher:
    """Moving average by half-life: the number of samples after which half of the old weights is left.

    It does not depend on the batch size, and grows geometrically from `start_samples` to `end_samples`.
    """

    kind: Literal["half_life"] = "half_life"
    start_samples: PositiveFloat
    end_samples: PositiveFloat


@dataclass(frozen=True, kw_only=True)
class SnapshotTeacher:
    """Copy of the context encoder, made before the first step of the stage and renewed at evenly spaced steps.

    refreshes: number of renewals within the stage.
    """

    kind: Literal["snapshot"] = "snapshot"
    refreshes: NonNegativeInt = 0


@dataclass(frozen=True, kw_only=True)
class FrozenTeacher:
    """A target encoder that does not change during the stage."""

    kind: Literal["frozen"] = "frozen"


Teacher = EmaTeacher | HalfLifeTeacher | SnapshotTeacher | FrozenTeacher


class TargetUpdate(NamedTuple):
    """What a step does to the target encoder: the share of its weights that it keeps before and after the step.

    The rest is that of the context encoder: 1 changes nothing, 0 makes a copy.
    """

    before: float = 1.0
    after: float = 1.0


def target_update(step: int, steps: int, length: float, batch_size: int, teacher: Teacher) -> TargetUpdate:
    """The update of the target encoder at a step of a stage.

    step: counted from the first one of the stage. steps: of the stage. length: of the schedule, relative to the stage.
    """
    progress = min(1.0, step / (steps * length))
    match teacher:
        case EmaTeacher():
            return TargetUpdate(after=teacher.start + (teacher.end - teacher.start) * progress)
        case HalfLifeTeacher():
            half_life = teacher.start_samples * (teacher.end_samples / teacher.start_samples) ** progress
            return TargetUpdate(after=float(0.5 ** (batch_size / half_life)))
        case SnapshotTeacher():
            copies = min(teacher.refreshes + 1, steps)
            nearest = min(round(step * copies / steps), copies - 1)
            return TargetUpdate(before=0.0 if step == round(nearest * steps / copies) else 1.0)
        case FrozenTeacher():
            return TargetUpdate()
