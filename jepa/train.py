"""The root config and, under it, the loop in one function."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import torch
from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.utils._pytree import tree_map

from jepa.checkpoint import latest
from jepa.config import ConfigError, differences, plain, read_yaml, to_yaml
from jepa.data import BadFiles, Batch, Order, Remembered, TrainingBatches, open_split, seeded, training_batches
from jepa.distributed import World, gradients_shared, is_sharded, stop_on_signals, whole
from jepa.evaluate.protocol import EvaluateConfig, check_functions
from jepa.loss import CollapseSigns, LossConfig, added_loss, by_name, collapse_signs, collapse_warning, prediction_loss
from jepa.modality import C, Modality
from jepa.model import JEPA, TargetKind, check_target
from jepa.networks import NetworksConfig
from jepa.optim import OptimConfig, adamw, set_schedule
from jepa.run_log import RunLog
from jepa.saving import Saver
from jepa.schedules import LinearMomentum, MomentumConfig, momentum


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Where and how to compute; none of it changes what is computed but for rounding.

    workers: processes that prepare batches, per training process; null for four a GPU and none on CPUs, where they
    would take the cores from the training. cache_mb: megabytes of decoded samples that each of them keeps, so that a
    small data set is decoded once. parallel, for several processes: `ddp` keeps all weights in each of them, `fsdp`
    spreads weights, gradients and optimiser state over them, and saves checkpoints by shards, in the background.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
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
        return 0 if device.type == "cpu" else _WORKERS_A_GPU


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


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient became infinite or not a number; its message is for the user."""


def train(config: Config[Any, Any], modality: Modality[Any], world: World) -> bool:
    """Pretrain until `config.steps`, from the run's last checkpoint where there is one.

    Returns whether the end was reached; False when a signal asked to stop, with everything saved.
    Raises ConfigError where the run directory holds another run, DataError and NonFiniteLossError; PeerError where
    another process met one of them.
    """
    with world.failing_together():
        samples = open_split(modality, "train")
        order = batch_order(config, world)
        check_networks(config, modality)
    model = initial_model(config, modality, world)
    model.set_activation_checkpointing(config.compute.activation_checkpointing)
    with world.failing_together():
        optimizer = adamw(model, config.optim)
        if world.is_main:  # after all that may refuse the config: a run that cannot start leaves nothing behind
            prepare_run_dir(config)
    saver = Saver(config.run_dir, plain(config), model, optimizer, world)
    first_step, seconds_before = saver.restore(config.start_from)
    if first_step == config.steps:
        return True
    if config.compute.compile:
        model.compile()
    forward = world.data_parallel(model, varying=bool(model.streams))
    bad_files = BadFiles(config.run_dir / "bad_files.txt", len(samples), config.data.max_bad_fraction)
    remembered = Remembered(samples, config.compute.cache_mb)
    training_set = TrainingBatches(modality, remembered, order, config.data.max_bad_fraction)
    steps, loaders = range(first_step, config.steps), config.compute.loaders(world.device)
    batches = training_batches(training_set, steps, loaders, world)

    with RunLog(config.run_dir, first_step, config.steps, world.is_main) as log, stop_on_signals() as stop_request:
        log.say(f"resumed from step {first_step}" if first_step else "fresh run")
        clock = Stopwatch(seconds_before)
        for step in steps:
            # Schedules, masks and batches are functions of (config, step, rank): a resumed run repeats them.
            rate = set_schedule(optimizer, step, config.steps, config.optim)
            length = config.steps * config.optim.schedule_length
            kept = momentum(step, length, config.optim.batch_size, config.momentum)
            with world.failing_together():
                batch = next(batches)
                bad_files.add(batch.bad)

            loss, total = backward(config, step, forward, batch)
            gradient_norm = whole(clip_grad_norm_(model.parameters(), config.optim.max_gradient_norm or float("inf")))
            with world.failing_together():
                if not torch.isfinite(total + gradient_norm):
                    raise NonFiniteLossError(_non_finite(step, world, config))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            model.bound_contrast()
            model.update_target(kept)

            done = step + 1
            stopping = done == config.steps or world.any(bool(stop_request))  # SLURM asks before it kills
            log.advance(done)
            if done % config.log_every == 0 or stopping:
                loss = world.mean(loss)
                rates = {"learning_rate": rate, "momentum": kept, "gradient_norm": float(gradient_norm)}
                rates["samples_per_second"] = clock.lap(done - first_step) * config.optim.batch_size
                signs = signs_of(model, batch, bf16=is_sharded(model) and config.compute.precision == "bf16")
                told = {"loss": float(loss), **rates, **by_name(signs), **batch.sizes(), "seconds": clock.total()}
                log.write(done, told)
                log.warn(done, collapse_warning(signs))
            if done % config.checkpoint_every == 0 or stopping:
                saver.save(done, clock.total())
            if stopping:
                break
        saver.wait()
        if done < config.steps:
            log.say(f"stopped by {stop_request.signal_name} after step {done}; the same command goes on from there")
        return done == config.steps


def initial_model(config: Config[Any, Any], modality: Modality[Any], world: World) -> JEPA:
    """The networks as drawn from the run's seed, on this process's device, in shards where the config says so.

    Raises ConfigError, and PeerError where another process met one.
    """
    torch.manual_seed(config.seed)
    build = partial(started, config, modality)
    if world.size == 1 or config.compute.parallel == "ddp":
        with world.failing_together():
            model = build()
        return model.to(world.device)
    from jepa.sharding import sharded  # for what few runs need

    return sharded(build, world, config.compute.precision == "bf16")


def started(config: Config[Any, Any], modality: Modality[Any]) -> JEPA:
    """Networks of random weights, and those that the encoder starts from; raises ConfigError."""
    model = JEPA(config.model, modality, config.target_kinds)
    if model.context_encoder.device.type != "meta" and not latest(config.run_dir).exists():
        try:
            model.context_encoder.start(config.model)
        except ValueError as error:
            raise ConfigError(f"model: {error}") from error
        model.target_encoder.load_state_dict(model.context_encoder.state_dict())
    return model


def backward(config: Config[Any, Any], step: int, forward: Callable[..., Any], batch: Batch) -> tuple[Tensor, Tensor]:
    """Gradients of a step, micro-batch after micro-batch -> prediction loss, and with what is added to it: scalars."""
    weights, parts = config.stage(step).weights, config.optim.accumulate
    losses, totals = [], []
    for number, part in enumerate(batch.split(parts), start=1):
        with gradients_shared(forward, shared=number == parts):
            with torch.autocast(batch.device.type, torch.bfloat16, enabled=config.compute.precision == "bf16"):
                predictions = forward(part.views, part.masks, tuple(weights))
            loss = prediction_loss(predictions, config.loss, weights)
            added = added_loss(predictions, config.loss, config.model.contrast, seeded("slices", config.seed, step))
            total = config.loss.prediction_weight * loss + added
            (total / parts).backward()
        losses.append(loss.detach())
        totals.append(total.detach())
    return torch.stack(losses).mean(), torch.stack(totals).mean()


def prepare_run_dir(config: Config[Any, Any]) -> None:
    """Make the run directory and write the resolved config, which alone repeats the run, into it.

    Raises ConfigError where the directory holds a run with another config; what only tells how to run it may differ.
    """
    path = config.run_dir / "config.yaml"
    if path.exists():
        free = ["run_dir", "log_every", "checkpoint_every", "compute.", "evaluate.", "data.max_bad_fraction"]
        if config.loss.regulariser == config.model.contrast == "none":  # either sees a micro-batch at a time
            free.append("optim.accumulate")
        free += [f"data.{name} (None there" for name in config.data.completed]  # as before it was kept
        changed = [line for line in differences(read_yaml(path), plain(config)) if not line.startswith(tuple(free))]
        if changed:
            raise ConfigError(
                f"{config.run_dir} holds a run with another config: {'; '.join(changed[:5])}. "
                "Nothing was changed there; choose another run_dir, or remove that one"
            )
    try:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".partial")
        aside.write_text(to_yaml(config))
        aside.replace(path)
    except OSError as error:
        raise ConfigError(f"run_dir: {error}") from error


class Stopwatch:
    """Seconds of training over all attempts, and speed since the last look."""

    def __init__(self, seconds_before: float) -> None:
        self.started = self.looked = time.perf_counter()
        self.seconds_before, self.steps = seconds_before, 0

    def total(self) -> float:
        """Seconds spent training, those of earlier attempts included."""
        return self.seconds_before + time.perf_counter() - self.started

    def lap(self, steps: int) -> float:
        """Steps a second since the last call, from the number of steps of this attempt."""
        now = time.perf_counter()
        speed = (steps - self.steps) / (now - self.looked)
        self.steps, self.looked = steps, now
        return speed


@torch.no_grad()
def signs_of(model: JEPA, batch: Batch, bf16: bool) -> dict[str, CollapseSigns]:
    """Signs of collapse of the target encoder on up to 128 samples of a batch, by stream; "" where there is one.

    bf16: for shards that are gathered in bf16; otherwise in fp32, as rounding would hide a collapse. Of several
    streams, and of samples that differ in length, what stands for a whole stream is looked at.
    """
    inputs = tree_map(lambda leaf: leaf[:128], batch.views[0])
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=bf16):
        tokens, present = model.target_encoder(inputs), model.target_encoder.present(inputs)
        if not model.streams and present is None:
            return {"": collapse_signs(tokens)}
        pooled = model.target_encoder.pool(tokens, (), present)
    return {name if model.streams else "": collapse_signs(one.unsqueeze(1)) for name, one in pooled.items()}


def check_networks(config: Config[Any, Any], modality: Modality[Any]) -> None:
    """Raise ConfigError for what can be told before the networks are built: their start, mask tokens, losses."""
    start, tokens = config.start_from, config.model.predictor.mask_tokens
    if start is not None and not latest(config.run_dir).exists() and not start.expanduser().exists():
        raise ConfigError(f"start_from: no checkpoint at {start}")
    sets = len(modality.sample_masks(1, seeded("masks", config.seed, 0)))
    if tokens > sets:
        raise ConfigError(f"model.predictor.mask_tokens: {tokens} cannot all be used by {sets} sets of masks")
    if tokens > 1 and modality.streams:  # their sets come and go, and evaluation asks for what no set had
        raise ConfigError(f"model.predictor.mask_tokens: {tokens}, but where tokens are of several streams it is 1")
    _check_losses(config, modality)
    check_functions(config.evaluate.functions)


def _check_losses(config: Config[Any, Any], modality: Modality[Any]) -> None:
    """Raise ConfigError for losses without effect; not when a run is loaded, as what it learned stays what it is."""
    loss, contrast = config.loss, config.model.contrast != "none"
    for name in ("invariance", "agreement"):
        if getattr(loss, name) and loss.regulariser == "none":
            raise ConfigError(f"loss.{name}: acts within the weight of loss.regulariser; set one, or {name} to 0")
    if loss.agreement and len(modality.streams) < 2:
        raise ConfigError(f"loss.agreement: {config.modality} data has no two streams that could agree; set it to 0")
    if loss.contrast_weight != 1 and not contrast:
        raise ConfigError("loss.contrast_weight: there is no contrast that it weighs; set model.contrast, or leave 1")
    regularised = loss.regulariser != "none" and loss.regulariser_weight > 0
    if not (loss.prediction_weight or regularised or (contrast and loss.contrast_weight)):
        raise ConfigError("loss.prediction_weight: at 0 nothing is learned without a regulariser or a contrast")


def batch_order(config: Config[Any, Any], world: World) -> Order:
    """Which samples this process sees when; raises ConfigError where the batch does not divide."""
    batch_size, accumulate = config.optim.batch_size, config.optim.accumulate
    if batch_size % (world.size * accumulate) or batch_size < 2 * world.size * accumulate:
        parts = f" and {accumulate} micro-batches" if accumulate > 1 else ""
        raise ConfigError(
            f"optim.batch_size: {batch_size} samples do not divide among {world.size} processes{parts} into 2 or more "
            "each"
        )
    return Order(seed=config.seed, batch_size=batch_size, rank=world.rank, world_size=world.size, accumulate=accumulate)


def _non_finite(step: int, world: World, config: Config[Any, Any]) -> str:
    saved = latest(config.run_dir)
    kept = f"the last good checkpoint stays at {saved}" if saved.exists() else "no checkpoint had been written yet"
    return (
        f"the loss or its gradient is not finite at step {step} on rank {world.rank}; {kept}. Try a smaller "
        "optim.peak_lr, optim.max_gradient_norm=1, a longer optim.warmup, or compute.precision=fp32"
    )
