"""The training loop, in one function."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from jepa.collapse import collapse_warning, flat_signs
from jepa.config import plain
from jepa.data import BadFiles, Batch, SampleCache, TrainingBatches, Upcoming, open_split, seeded, training_batches
from jepa.distributed import World, gradients_shared, stop_on_signals
from jepa.loss import prediction_loss, total_loss
from jepa.modality import Modality
from jepa.optim import build_optimizer, clip_gradient, set_schedule
from jepa.training.checks import batch_order, check_config
from jepa.training.config import Config
from jepa.training.data_record import announce_data
from jepa.training.finite import FiniteCheck
from jepa.training.log import RunLog, Stopwatch
from jepa.training.memory import keep_freed_memory
from jepa.training.networks import initial_model
from jepa.training.numerics import bf16_everywhere, numerics
from jepa.training.resume import checkpoint_to_resume
from jepa.training.run_dir import prepare_run_dir, say_finished
from jepa.training.saver import Saver
from jepa.training.signs import logged_signs
from jepa.weights.start import start_weights


def train(config: Config[Any, Any], modality: Modality[Any], world: World) -> bool:
    """Pretrain until `config.steps`, starting from the last checkpoint of the run if there is one.

    Returns whether the run is finished; False if a signal asked it to stop, in which case everything is saved.
    Raises ConfigError if the run directory holds another run, DataError, NonFiniteLossError, and PeerError if another
    process raised one of them.
    """
    from jepa.evaluate.online import online_probe  # evaluation is slow to import

    with world.error_barrier():
        samples = open_split(modality, "train")
        order = batch_order(config, modality, world)
        check_config(config, modality)
    checkpoint = checkpoint_to_resume(config, samples, world)
    start = partial(start_weights, config, modality) if config.start_from else None
    model = initial_model(config, modality, world, is_replaced=checkpoint is not None or start is not None)
    model.set_activation_checkpointing(config.compute.activation_checkpointing)
    bf16 = bf16_everywhere(config.compute, world)
    with world.error_barrier():
        optimizer = build_optimizer(model, config.optim, bf16, world.size)
        if world.is_main:  # last, so that a run that cannot start leaves no trace
            prepare_run_dir(config)
    saver = Saver(config.run_dir, plain(config), model, optimizer, world)
    first_step, seconds_before = saver.restore(checkpoint, start)
    if first_step == config.steps:
        say_finished(config, world)
        return True
    announce_data(config, modality, samples, world)
    probe = online_probe(config, modality, model, world, first_step)
    keep_freed_memory(world.device)
    if config.compute.compile:
        model.compile()
    forward = world.data_parallel(model, varying=bool(model.streams) or config.changes_networks)
    bad_files = BadFiles(config.run_dir / "bad_files.txt", len(samples), config.data.max_bad_fraction)
    steps, loaders = range(first_step, config.steps), config.compute.loaders(world.device)
    cached = SampleCache.of_machine(samples, config.compute.cache_mb, world, loaders)
    training_set = TrainingBatches(modality, cached, order, config.data.max_bad_fraction)
    loading = training_batches(training_set, steps, loaders, world, config.compute.prefetch_mb)
    run_log = RunLog(config.run_dir, first_step, config.steps, world.is_main)
    with (
        numerics(config.compute, world),
        stop_on_signals() as stop_request,
        saver.finishing(),
        run_log as log,
        loading as batches,
    ):
        log.say(f"resumed from step {first_step}" if first_step else "fresh run")
        clock, finite = Stopwatch(seconds_before), FiniteCheck(saver.last, world)
        upcoming = Upcoming(batches, bad_files, saver.check, stop_request, world)
        upcoming.fetch()
        upcoming.agree()
        for step in steps:
            # Schedules, masks and batches are functions of (config, step, rank), so a resumed run repeats them.
            rate = set_schedule(optimizer, step, config.steps, config.optim)
            update = config.target_update(step)
            # Nothing from here to `upcoming.fetch` may wait for the device.
            model.update_target(update.before)
            batch = upcoming.take()
            loss, total = backward(config, step, forward, batch)
            gradient_norm = clip_gradient(optimizer, config.optim.max_gradient_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            model.clamp_contrast()
            model.update_target(update.after)
            upcoming.fetch()
            finite.add(step, total, gradient_norm)
            done = step + 1
            stopping = upcoming.agree() or done == config.steps  # SLURM asks before it kills
            log.advance(done)
            logging, saving = config.logs(done) or stopping, config.saves(done) or stopping
            if logging or saving:
                finite.check()
            if logging:
                rates = {"learning_rate": rate, "momentum": update.before * update.after}
                rates["gradient_norm"] = float(gradient_norm)
                rates["samples_per_second"] = clock.lap(done - first_step) * config.optim.batch_size
                signs = logged_signs(model, config, batch, world)
                losses = {"loss": float(world.mean(loss)), "total_loss": float(world.mean(total))}
                log.write(done, clock, losses, rates, flat_signs(signs), batch.sizes(), probe.scores(done, clock))
                log.warn(done, collapse_warning(signs, len(batch.masks[0].context), config.remedies))
            if saving or probe.is_best(done):
                saver.save(done, clock.total(), config.keeps(done), probe.is_best(done))
            if stopping:
                break
        saver.wait()
        log.warn(done, bad_files.summary())
        if done < config.steps:
            signal = stop_request.signal_name or "a signal to another process"
            log.say(f"stopped by {signal} after step {done}; run the same command again to resume")
        return done == config.steps


def backward(config: Config[Any, Any], step: int, forward: Callable[..., Any], batch: Batch) -> tuple[Tensor, Tensor]:
    """Compute the gradients of a step, one micro-batch after another -> prediction loss and total loss, scalars."""
    weights, parts, terms = config.weights(step), batch.split(config.optim.accumulate), config.loss_at(step)
    losses, totals = [], []
    for number, part in enumerate(parts, start=1):
        with gradients_shared(forward, shared=number == len(parts)):
            with torch.autocast(batch.device.type, torch.bfloat16, config.compute.uses_bf16(batch.device.type)):
                output = forward(part.views, part.masks, tuple(weights), part.local, config.projects(weights))
            loss = prediction_loss(output.predictions, terms, weights, output.local)
            total = total_loss(loss, output, terms, config.model.contrast, seeded("slices", config.seed, step))
            scaled = total / len(parts)
            scaled.backward(scaled.detach() * 0 + 1)  # 1; NaN if the loss is not finite, so that every rank sees it
        losses.append(loss.detach())
        totals.append(total.detach())
    return torch.stack(losses).mean(), torch.stack(totals).mean()
