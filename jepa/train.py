"""The root config and, under it, the loop in one function."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.utils._pytree import tree_map

from jepa.checkpoint import latest
from jepa.collapse import CollapseSigns, by_name, collapse_signs, collapse_warning
from jepa.config import ConfigError, plain
from jepa.data import BadFiles, Batch, SampleCache, TrainingBatches, open_split, seeded, training_batches
from jepa.distributed import World, gradients_shared, is_sharded, stop_on_signals, whole
from jepa.errors import UserError
from jepa.loss import added_loss, prediction_loss
from jepa.modality import Modality
from jepa.model import JEPA
from jepa.optim import adamw, set_schedule
from jepa.schedules import momentum
from jepa.training.checks import batch_order, check_networks
from jepa.training.config import Config
from jepa.training.log import RunLog, Stopwatch
from jepa.training.run_dir import prepare_run_dir
from jepa.training.saver import Saver


class NonFiniteLossError(UserError, RuntimeError):
    """The loss or its gradient became infinite or not a number; its message is for the user."""


def train(config: Config[Any, Any], modality: Modality[Any], world: World) -> bool:
    """Pretrain until `config.steps`, from the run's last checkpoint where there is one.

    Returns whether the end was reached; False when a signal asked to stop, with everything saved.
    Raises ConfigError where the run directory holds another run, DataError and NonFiniteLossError; PeerError where
    another process met one of them.
    """
    with world.error_barrier():
        samples = open_split(modality, "train")
        order = batch_order(config, world)
        check_networks(config, modality)
    model = initial_model(config, modality, world)
    model.set_activation_checkpointing(config.compute.activation_checkpointing)
    with world.error_barrier():
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
    cached = SampleCache(samples, config.compute.cache_mb)
    training_set = TrainingBatches(modality, cached, order, config.data.max_bad_fraction)
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
            with world.error_barrier():
                batch = next(batches)
                bad_files.add(batch.bad)

            loss, total = backward(config, step, forward, batch)
            gradient_norm = whole(clip_grad_norm_(model.parameters(), config.optim.max_gradient_norm or float("inf")))
            with world.error_barrier():
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
        with world.error_barrier():
            model = build()
        return model.to(world.device)
    from jepa.training.fsdp import sharded  # for what few runs need

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


def _non_finite(step: int, world: World, config: Config[Any, Any]) -> str:
    saved = latest(config.run_dir)
    kept = f"the last good checkpoint stays at {saved}" if saved.exists() else "no checkpoint had been written yet"
    return (
        f"the loss or its gradient is not finite at step {step} on rank {world.rank}; {kept}. Try a smaller "
        "optim.peak_lr, optim.max_gradient_norm=1, a longer optim.warmup, or compute.precision=fp32"
    )
