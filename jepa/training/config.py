"""The config of a run and its sections that belong to no other module."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import torch
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from jepa.compat.stages import FORMER, new_spelling
from jepa.config import Tree
from jepa.config.effects import Use
from jepa.loss import LossConfig
from jepa.modality import C, Modality
from jepa.model_config import NetworksConfig
from jepa.optim import OptimConfig
from jepa.probe.protocol import EvaluateConfig, ProbeConfig, Which
from jepa.targets import VIEWS, VISIBLE, TargetKind
from jepa.training.effects import run_effects
from jepa.training.stages import Stage, StageConfig, check_stages, in_order, in_steps, last_stage
from jepa.training.teachers import TargetUpdate


@cache
def has_fast_bf16(device: str) -> bool:
    """Whether matrix products in bf16 are known to be faster than in fp32 on a kind of device, such as "cpu".

    Other processors emulate bf16, at a fraction of the speed of fp32. CUDA without a GPU means one that is planned.
    """
    if device == "cuda":
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Where and how to compute; except for rounding, none of these settings changes a result.

    device: `auto` means CUDA if there is a GPU, otherwise the CPU. `mps` (Apple; never tried on real hardware) is
    for training only; evaluation then runs on the CPU. workers: processes per training process that prepare
    batches; null means four per GPU, and none on CPUs, where they would take cores from training. cache_mb:
    megabytes of decoded samples in memory for each of these processes, so that a small data set is decoded once; on
    Linux, all processes of a machine share them. They are dropped if they turn out to be less than half of the set.
    prefetch_mb: megabytes of batches that the workers of a training process prepare ahead, in shared memory; at
    least one batch each. precision: of matrix products; `auto` is bf16 where it is faster than fp32 (GPUs since
    Ampere, CPUs with AMX or AVX-512 BF16), fp32 elsewhere. parallel: with several processes, `ddp` keeps all
    weights in each; `fsdp` shards weights, gradients and optimiser state over them and saves sharded checkpoints in
    the background. deterministic: use only operations that give the same bits every time, so that a run on GPUs can
    be repeated exactly, at some cost in speed; on CPUs all operations here do.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = False
    deterministic: bool = False
    activation_checkpointing: bool = False
    workers: NonNegativeInt | None = None
    cache_mb: NonNegativeInt = 512
    prefetch_mb: NonNegativeInt = 2048

    def __post_init__(self) -> None:
        if self.compile and self.parallel == "fsdp":
            raise ValueError("compile: does not work with parallel=fsdp; set parallel=ddp or compile=false")

    def uses_bf16(self, device: str) -> bool:
        """Whether matrix products on a kind of device, such as "cpu", are computed in bf16."""
        return has_fast_bf16(device) if self.precision == "auto" else self.precision == "bf16"

    def precision_on(self, device: str) -> Literal["bf16", "fp32"]:
        """The precision of matrix products on a kind of device."""
        return "bf16" if self.uses_bf16(device) else "fp32"

    def loaders(self, device: torch.device) -> int:
        """Number of worker processes that prepare batches for a device."""
        if self.workers is not None:
            return self.workers
        return 4 if device.type == "cuda" else 0


M = TypeVar("M", bound=NetworksConfig)


def one_spelling(source: str) -> str:
    """A source without what does not matter in a path, such as a slash at its end: a run compares its settings."""
    return source if "://" in source else Path(source).as_posix()


@dataclass(frozen=True, kw_only=True)
class Config(Generic[C, M]):
    """A run. `data` and `model` are sections of the modality's own types; lengths are in optimiser steps.

    keep_every: keep the checkpoint of every N-th step as checkpoints/step_N.pt; null keeps only the latest. start_from:
    run directory, checkpoint, released file, folder or hub name whose networks the run takes as its initial ones, for a
    cooldown or to adapt to other data, with the settings that belong to them (docs/adapt.md); null for random ones.
    start_fresh: networks that start with random weights all the same. stages: parts of the run, in order, each with its
    targets and its teacher.
    """

    modality: str
    run_dir: Path
    steps: PositiveInt = 10_000
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    log_every: PositiveInt = 20
    checkpoint_every: PositiveInt = 500
    keep_every: PositiveInt | None = None
    start_from: Annotated[str, AfterValidator(one_spelling)] | None = None
    start_fresh: tuple[Literal["predictor", "projectors", "contrast"], ...] = ()
    stages: tuple[StageConfig, ...] = (StageConfig(),)
    data: C
    model: M
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        check_stages(self.stages)

    def no_effect(self, use: Use) -> dict[str, str]:
        """Settings of all sections but `data` that have no effect, with the reason."""
        return run_effects(self, use)

    @staticmethod
    def moved(setting: str, tree: Tree) -> str:
        """How to write a setting of earlier versions now, empty for others; tree: all settings, as they were given."""
        return new_spelling(tree) if setting in FORMER else ""

    @staticmethod
    def of(modality_type: type[Modality[Any]]) -> "type[Config[Any, Any]]":
        """The config type of a modality."""
        return Config[modality_type.config_type, modality_type.model_type]  # type: ignore[name-defined]

    def logs(self, done: int) -> bool:
        """Whether a line of the log is due after so many steps."""
        return done % self.log_every == 0 or self.probe.is_due(done, self.steps)

    def keeps(self, done: int) -> bool:
        """Whether the checkpoint after so many steps stays when later ones are written."""
        return self.keep_every is not None and done % self.keep_every == 0

    def saves(self, done: int) -> bool:
        """Whether a checkpoint is due after so many steps."""
        return done % self.checkpoint_every == 0 or self.keeps(done)

    @property
    def timeline(self) -> tuple[Stage, ...]:
        """The stages in steps of the run, in order."""
        visible = {} if self.loss.visible == "none" else {VISIBLE: self.loss.visible_weight}
        return tuple(in_steps(self.stages, self.steps, visible))

    def stage(self, step: int) -> Stage:
        """The stage that a step belongs to."""
        return next(stage for stage in reversed(self.timeline) if step >= stage.first_step)

    def weights(self, step: int) -> dict[TargetKind, float]:
        """The weight of each kind of target at a step."""
        weights = self.stage(step).weights
        return weights | {VISIBLE: self.loss.visible_at(step / self.steps)} if VISIBLE in weights else weights

    def loss_at(self, step: int) -> LossConfig:
        """The loss at a step: where `views` are predicted, their weight replaces `invariance`, which means the same."""
        return replace(self.loss, invariance=0.0) if VIEWS in self.stage(step).weights else self.loss

    def projects(self, kinds: Collection[TargetKind]) -> bool:
        """Whether the loss of these kinds of target reads projected contexts."""
        return VIEWS in kinds or self.loss.regulariser != "none"

    def target_update(self, step: int) -> TargetUpdate:
        """What a step does to the target encoder."""
        return self.stage(step).target_update(step, self.optim)

    @property
    def target_kinds(self) -> tuple[TargetKind, ...]:
        """Every kind of target that the run predicts at some step, in the order of the predictor's outputs."""
        kinds = sorted({kind for stage in self.stages for kind in stage.predict}, key=in_order)
        return (*kinds, *(() if self.loss.visible == "none" else (VISIBLE,)))

    @property
    def changes_networks(self) -> bool:
        """Whether a network may be trained in some stages only: `views` need no predictor, others no projector."""
        return len(self.stages) > 1 and VIEWS in self.target_kinds

    @property
    def has_teacher(self) -> bool:
        """Whether some target is computed with the target encoder."""
        return any(stage.reads_target_encoder for stage in self.stages)

    @property
    def remedies(self) -> list[str]:
        """What may help against a collapse, and is not set."""
        found = ["a smaller optim.peak_lr"]
        if any(stage.reads_target_encoder and stage.averages for stage in self.stages):
            found.append("a slower or a snapshot teacher")
        none = self.loss.regulariser == "none"
        found.append("loss.regulariser=vicreg" if none else "a larger loss.regulariser_weight")
        if self.has_teacher and self.model.depth > 1 and self.model.target_layers != 0:
            found.append("model.target_layers=0")
        return found

    @property
    def evaluated_encoder(self) -> Which:
        """The encoder to evaluate, export and embed with, and to watch for signs of collapse."""
        averages = last_stage(self.stages, self.steps).averages
        default: Which = "target_encoder" if averages else "context_encoder"
        return self.evaluate.encoder or default
