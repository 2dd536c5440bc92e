"""The root config of a run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import torch
from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from jepa.loss import LossConfig
from jepa.modality import C, Modality
from jepa.model import TargetKind, check_target
from jepa.model_config import NetworksConfig
from jepa.optim import OptimConfig
from jepa.protocol import EvaluateConfig
from jepa.schedules import LinearMomentum, MomentumConfig


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Where and how to compute; none of it changes what is computed but for rounding.

    device: `auto` is CUDA if there is a GPU, else the CPU. `mps` (Apple; not tried on a real Mac) trains only: runs
    are evaluated on the CPU. workers: processes that prepare batches, per training process; null for four a GPU and
    none on CPUs, where they would take the cores from the training. cache_mb: megabytes of decoded samples that each
    of them keeps, so that a small data set is decoded once. parallel, for several processes: `ddp` keeps all weights
    in each of them, `fsdp` spreads weights, gradients and optimiser state over them, and saves checkpoints by shards,
    in the background.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = False
    activation_checkpointing: bool = False
    workers: NonNegativeInt | None = None
    cache_mb: NonNegativeInt = 512

    def __post_init__(self) -> None:
        if self.compile and self.parallel == "fsdp":
            raise ValueError("compile: not together with parallel=fsdp; use ddp, or compile=false")

    def loaders(self, device: torch.device) -> int:
        """Processes that prepare batches for a device."""
        if self.workers is not None:
            return self.workers
        return _WORKERS_A_GPU if device.type == "cuda" else 0


_WORKERS_A_GPU = 4


@dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """What is predicted when, unless `target=pixels`: a random encoder's representations hold little to learn from.

    pixel_weight: weight of raw patches as targets beside the representations, all through the run; 0 for none.
    latent_from: share of the steps before representations are predicted as well, until when pixels stand alone. In the
    manner of SALT (Li et al. 2025), whose teacher learns from pixels; departs from it: there is no second student.
    """

    pixel_weight: NonNegativeFloat = 0.0
    latent_from: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        if self.latent_from and not self.pixel_weight:
            raise ValueError("latent_from: before representations, pixels are predicted, so pixel_weight must not be 0")


class Stage(NamedTuple):
    """A part of a run that predicts one set of targets."""

    first_step: int
    steps: int
    weights: dict[TargetKind, float]


M = TypeVar("M", bound=NetworksConfig)


@dataclass(frozen=True, kw_only=True)
class Config(Generic[C, M]):
    """A run. `data` and `model` are sections of the modality's own types; lengths are in optimiser steps.

    start_from: a run directory, checkpoint file or released file of V-JEPA 2 whose networks are the start, instead of
    random ones: for a cooldown, or to adapt to data of one's own. target: `latent`, `pixels`, or a function of one's
    own, as package.module:function; see JEPA.
    """

    modality: str
    run_dir: Path
    steps: PositiveInt = 10_000
    seed: NonNegativeInt = 0
    log_every: PositiveInt = 20
    checkpoint_every: PositiveInt = 500
    start_from: Path | None = None
    target: Annotated[TargetKind, AfterValidator(check_target)] = "latent"
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    data: C
    model: M
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    momentum: MomentumConfig = field(default_factory=LinearMomentum)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        if self.model.projector and self.loss.regulariser == "none":
            raise ValueError("model.projector: only loss.regulariser sees what it projects; set one, or projector to 0")

    @staticmethod
    def of(modality_type: type[Modality[Any]]) -> "type[Config[Any, Any]]":
        """The type of the configs of a modality."""
        return Config[modality_type.config_type, modality_type.model_type]  # type: ignore[name-defined]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The parts of the run, in order."""
        if self.target == "pixels":
            return (Stage(0, self.steps, {"pixels": 1.0}),)
        pixels: dict[TargetKind, float] = (
            {"pixels": self.curriculum.pixel_weight} if self.curriculum.pixel_weight else {}
        )
        before = round(self.curriculum.latent_from * self.steps)
        main = Stage(before, self.steps - before, {**pixels, self.target: 1.0})
        return (Stage(0, before, pixels), main) if before else (main,)

    def stage(self, step: int) -> Stage:
        """The part of the run that a step belongs to."""
        return next(stage for stage in reversed(self.stages) if step >= stage.first_step)

    @property
    def target_kinds(self) -> tuple[TargetKind, ...]:
        """Every kind of target that the run predicts at some step."""
        return tuple(self.stages[-1].weights)
