"""The stages of a run: what is predicted in each, and how the target encoder follows the context encoder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

from jepa.optim import OptimConfig
from jepa.targets import VIEWS, TargetKind, check_target
from jepa.training.teachers import (
    EmaTeacher,
    FrozenTeacher,
    HalfLifeTeacher,
    SnapshotTeacher,
    TargetUpdate,
    Teacher,
    target_update,
)

_AVERAGES = (EmaTeacher, HalfLifeTeacher)
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _weighted(value: Any) -> Any:
    """A lone kind of target has weight 1; raises ValueError for what are no kinds."""
    if not isinstance(value, str | dict):
        raise ValueError(
            f"should be a kind of target, or kinds with weights as {{latent: 1, pixels: 0.5}}, not {value!r}"
        )
    return {value: 1.0} if isinstance(value, str) else value


def _checked(weights: dict[TargetKind, float]) -> dict[TargetKind, float]:
    """Weights above 0, pixels first and then by name: the order of the predictor's outputs."""
    used = {kind: weights[kind] for kind in sorted(weights, key=in_order) if weights[kind]}
    for kind in used:
        check_target(kind)
    if not used:
        raise ValueError("a stage predicts at least one kind of target, with a weight above 0")
    return used


def in_order(kind: TargetKind) -> tuple[bool, bool, str]:
    """A key that sorts kinds of target: pixels, functions by name, representations."""
    return kind != "pixels", kind == "latent", kind


def _with_kind(value: Any) -> Any:
    """A lone word is a kind of teacher; a teacher without a kind is a moving average with a momentum per step.

    Raises ValueError for anything but a kind and a section of settings.
    """
    if not isinstance(value, str | dict):
        raise ValueError(f"should be ema, half_life, snapshot, frozen, or a section with a kind, not {value!r}")
    return {"kind": value} if isinstance(value, str) else {"kind": "ema", **value}


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """A part of a run with one set of targets and one teacher.

    until: share of the steps at which the stage ends; the last one ends at 1. predict: kinds of target with weights:
    `latent` (representations), `pixels` (raw patches), custom functions `package.module:function`, and `views`, which
    pulls the views of a sample together without a target encoder (LeJEPA, Balestriero & LeCun 2025); a lone kind has
    weight 1. teacher: how the target encoder follows the context encoder: `ema` and `half_life` are moving averages,
    `snapshot` a copy that is renewed now and then, `frozen` never changes. Its schedule runs over the stage.
    """

    until: Annotated[float, Field(gt=0, le=1)] = 1.0
    predict: Annotated[
        dict[TargetKind, _Weight],
        BeforeValidator(_weighted, json_schema_input_type=dict[TargetKind, _Weight] | TargetKind),
        AfterValidator(_checked),
    ] = field(default_factory=lambda: {"latent": 1.0})
    teacher: Annotated[Teacher, Field(discriminator="kind"), BeforeValidator(_with_kind)] = field(
        default_factory=EmaTeacher
    )

    @property
    def reads_target_encoder(self) -> bool:
        """Whether some target of the stage is computed with the target encoder."""
        return not set(self.predict) <= {"pixels", VIEWS}

    @property
    def predicts_tokens(self) -> bool:
        """Whether some target of the stage needs the predictor."""
        return set(self.predict) != {VIEWS}

    @property
    def averages(self) -> bool:
        """Whether the target encoder is a moving average of the context encoder."""
        return isinstance(self.teacher, _AVERAGES)


class Stage(NamedTuple):
    """A stage in steps of a run, with the weight of each kind of target."""

    first_step: int
    steps: int
    weights: dict[TargetKind, float]
    teacher: Teacher
    copies: bool = False  # whether the target encoder starts the stage as a copy of the context encoder
    follows: bool = False  # whether it is a copy after each step: nothing reads it, but the run may be evaluated

    def target_update(self, step: int, optim: OptimConfig) -> TargetUpdate:
        """What a step of the run does to the target encoder."""
        if self.follows:
            return TargetUpdate(after=0.0)
        of_stage = step - self.first_step
        update = target_update(of_stage, self.steps, optim.schedule_length, optim.batch_size, self.teacher)
        return update._replace(before=0.0) if self.copies and not of_stage else update

    def described(self) -> str:
        """The steps, the targets and the teacher in words."""
        targets = " + ".join(kind if weight == 1 else f"{weight:g} x {kind}" for kind, weight in self.weights.items())
        teacher = "target encoder: not used" if self.follows else _words(self.teacher, self.steps)
        return f"steps {self.first_step:,} to {self.first_step + self.steps - 1:,}: {targets}; {teacher}"


def _words(teacher: Teacher, steps: int) -> str:
    """A teacher of a stage of so many steps in words."""
    match teacher:
        case EmaTeacher(start=start, end=end):
            return f"target encoder: moving average, momentum {start:g} to {end:g}"
        case HalfLifeTeacher(start_samples=start, end_samples=end):
            return f"target encoder: moving average, half-life {start:,.0f} to {end:,.0f} samples"
        case SnapshotTeacher():
            count = min(teacher.refreshes, steps - 1)
            times = "" if not count else ", renewed once" if count == 1 else f", renewed {count:,} times"
            return f"target encoder: copy of the context encoder at the start{times}"
        case _:
            return "target encoder: frozen"


def check_stages(stages: Sequence[StageConfig]) -> None:
    """Raise ValueError for stages that do not follow each other up to the end of the run."""
    if not stages:
        raise ValueError("stages: a run needs at least one")
    for number, (one, following) in enumerate(pairwise(stages)):
        if one.until == following.until == 1:
            raise ValueError(f"stages.{number}: another stage follows; give stages.{number} an until below 1")
        if one.until >= following.until:
            raise ValueError(
                f"stages.{number}.until: {one.until:g} must be below that of the next stage, {following.until:g}"
            )
    if stages[-1].until != 1:
        last = len(stages) - 1
        raise ValueError(f"stages.{last}.until: {stages[-1].until:g}, but the last stage ends at 1; leave it out")


def in_steps(stages: Sequence[StageConfig], steps: int, more: dict[TargetKind, float]) -> list[Stage]:
    """The stages of a run of so many steps, without those that are shorter than a step; more: weights in each.

    A moving average that follows stages which neither read nor update the target encoder starts from a copy. Before a
    copy, a target encoder that nothing reads follows the context encoder, so that any step can be evaluated.
    """
    unread, lasts = {number for number, _ in unread_teachers(stages, steps)}, lasting(stages, steps)
    is_used = False
    found: list[Stage] = []
    for number, (first, end) in lasts.items():
        one = stages[number]
        teacher = FrozenTeacher() if number in unread else one.teacher
        copies = one.averages and first > 0 and not is_used
        found.append(Stage(first, end - first, {**one.predict, **more}, teacher, copies))
        is_used = is_used or one.averages or one.reads_target_encoder
    is_copied = False
    for place, number in reversed([*enumerate(lasts)]):
        stage = found[place]
        follows = is_copied and isinstance(stage.teacher, FrozenTeacher) and not stages[number].reads_target_encoder
        found[place] = stage._replace(follows=follows)
        is_copied = follows or stage.copies or isinstance(stage.teacher, SnapshotTeacher)
    return found


def lasting(stages: Sequence[StageConfig], steps: int) -> dict[int, tuple[int, int]]:
    """First step, and the step after the last, of each stage by number, without those that are shorter than a step."""
    ends = [0, *(round(one.until * steps) for one in stages)]
    return {number: (first, end) for number, (first, end) in enumerate(pairwise(ends)) if end > first}


def last_stage(stages: Sequence[StageConfig], steps: int) -> StageConfig:
    """The stage with which a run of so many steps ends."""
    return stages[max(lasting(stages, steps))]


def unread_teachers(stages: Sequence[StageConfig], steps: int) -> list[tuple[int, int]]:
    """The stages whose teacher has no effect: they do not read it, and the next one, given too, starts with a copy."""
    return [
        (number, following)
        for number, following in pairwise(lasting(stages, steps))
        if not stages[number].reads_target_encoder and isinstance(stages[following].teacher, SnapshotTeacher)
    ]
