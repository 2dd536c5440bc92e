"""The report of a dry run: parameters, FLOPs, memory per GPU under DDP and FSDP, GPU hours, and warnings."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from jepa.cost.flops import encoder_flops, example_view, first_masks, networks, run_flops
from jepa.cost.gpus import GPUS, RESERVED, UTILISATION, Gpu
from jepa.cost.process_memory import Allocation, Parallel, ProcessMemory, count, process_memory
from jepa.cost.step_memory import trained
from jepa.data import batch_bytes, batches_ahead
from jepa.modality import Modality
from jepa.model import JEPA
from jepa.optim import muon_matrices
from jepa.training.config import Config

__all__ = ["Allocation", "describe", "warnings"]


def describe(config: Config[Any, Any], modality: Modality[Any], asked: Allocation) -> str:
    """Cost of a run as text.

    Raises ConfigError if the batch does not divide among the processes, and DataError if it needs missing data.
    """
    flops = run_flops(config, modality)
    memory = process_memory(config, modality, asked)
    parts = [_size(config, modality, flops), _memory_lines(config, modality, memory, asked)]
    parts.append(loader_lines(config, modality, asked))
    if asked.gpus:
        parts.append(_gpu_lines(config, memory, asked, flops))
        parts.append([f"warning: {line}" for line in warnings(config, memory, asked, flops)])
    return "\n\n".join("\n".join(part) for part in parts if part)


def warnings(
    config: Config[Any, Any], memory: dict[Parallel, ProcessMemory], asked: Allocation, flops: float
) -> list[str]:
    """A sentence for each GPU type that is too small or too slow, and for unused GPUs."""
    found = []
    if asked.processes < asked.gpus:
        found.append(f"{asked.processes} processes use {asked.processes} of {asked.gpus} GPUs")
    chosen = config.compute.parallel if config.compute.parallel in memory else "ddp"
    small = [gpu for gpu in GPUS if not gpu.holds(memory[chosen].total)]
    if small:
        need, names = _gib(memory[chosen].total + RESERVED), ", ".join(gpu.name for gpu in small)
        found.append(f"{need:.1f} GiB with {chosen} do not fit {names}; {_advice(config, memory, small)}")
    hours = {gpu.name: gpu.hours(flops, config.compute.precision != "fp32") / asked.used_gpus for gpu in GPUS}
    if slow := [f"{name} ({_hours(time)} h)" for name, time in hours.items() if time > asked.hours * asked.attempts]:
        attempts = f"{asked.attempts} attempts of " if asked.attempts > 1 else ""
        found.append(f"{attempts}{asked.hours:.3g} h end before the run does on {', '.join(slow)}")
    return found


def _advice(config: Config[Any, Any], memory: dict[Parallel, ProcessMemory], small: Sequence[Gpu]) -> str:
    fitting = [way for way in memory if all(gpu.holds(memory[way].total) for gpu in small)]
    if fitting:
        return f"compute.parallel={fitting[0]} does"
    if not config.compute.activation_checkpointing:
        return "compute.activation_checkpointing=true or a larger optim.accumulate need less"
    return "ask for more GPUs, or take a smaller optim.batch_size"


def _size(config: Config[Any, Any], modality: Modality[Any], flops: float) -> list[str]:
    model, drawn = networks(config, modality), first_masks(config, modality)
    context = round(fmean(one.context.shape[1] for masks in drawn for one in masks))
    target = round(fmean(one.target.shape[1:].numel() for masks in drawn for one in masks))
    sets, batch, local = len(drawn[0]), config.optim.batch_size, modality.local_views
    samples = config.steps * batch
    per_sample, per_step = _short(flops / samples / 1e9), _short(flops / config.steps / 1e12)
    parts = {"encoder": model.context_encoder, "predictor": model.predictor, "projector": model.projectors}
    trained_parts = {name: count(one for one in part.parameters() if one.requires_grad) for name, part in parts.items()}
    return [
        "parameters   " + ", ".join(f"{name} {number:,}" for name, number in trained_parts.items() if number),
        f"tokens       {len(modality.positions)} per sample on a grid of {' x '.join(map(str, modality.grid))}; "
        f"about {context} context, {target} target"
        + (f" in each of {sets} sets" if sets > 1 else "")
        + (f"; {math.prod(modality.local_grid)} in each of {local} smaller views" if local else ""),
        f"FLOPs        {per_sample} G per sample, {per_step} T per step of {batch:,} samples, {flops:.3g} in total",
        f"run          {config.steps:,} steps, {samples:,} samples",
        *(f"{'' if number else 'stages':<13}{stage.described()}" for number, stage in enumerate(config.timeline)),
        f"checkpoint   {_checkpoints(config, model)}",
        *_probe(config, modality, flops),
    ]


def _checkpoints(config: Config[Any, Any], model: JEPA) -> str:
    """Size on the disk: all networks, and two moments of each trained weight, or one of those that Muon updates."""
    size = sum(one.numel() * one.element_size() for one in model.state_dict().values())
    size += 2 * sum(one.numel() * one.element_size() for one in trained(model))
    size -= sum(one.numel() * one.element_size() for one in muon_matrices(model, config.optim))
    kept = config.steps // config.keep_every if config.keep_every else 0
    more = f"; keep_every={config.keep_every} keeps {kept:,} more, {_gib(kept * size):.3g} GiB" if kept else ""
    more += "; the best one is kept too" if config.probe.every else ""
    return f"{_gib(size):.3g} GiB on the disk, and as much host memory while it is written{more}"


def _probe(config: Config[Any, Any], modality: Modality[Any], flops: float) -> list[str]:
    """What the probe during training costs: its share of the FLOPs of the run, and memory for decoded samples."""
    probe = config.probe
    if not probe.every:
        return []
    samples, times = probe.train_samples + probe.validation_samples, probe.count(config.steps)
    share = times * samples * encoder_flops(config, modality) / flops
    view = sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(example_view(modality)))
    stored = min(samples * view / 2**20, config.compute.cache_mb)
    return [
        f"probe        {times:,} times k-NN of up to {probe.validation_samples:,} validation among "
        f"{probe.train_samples:,} training samples, {share:.2g} times the FLOPs of the run; their views take up to "
        f"{stored:,.0f} MiB in memory"
    ]


def _memory_lines(
    config: Config[Any, Any], modality: Modality[Any], memory: dict[Parallel, ProcessMemory], asked: Allocation
) -> list[str]:
    share = config.optim.batch_size // asked.processes
    parts = config.optim.accumulate
    if (groups := modality.mask_groups) and not groups.equal and groups.size < config.optim.batch_size:
        parts = share // math.gcd(share // parts, groups.size)  # as `step_masks` divides it
    batches = f"{f'{parts} micro-batches' if parts > 1 else 'a batch'} of {share // parts:,} samples"
    recomputed = ", activations recomputed" if config.compute.activation_checkpointing else ""
    title = f"peak GiB per process for {batches} in {config.compute.precision_on(asked.device)}{recomputed}"
    lines = [f"memory       {title}", " " * 25 + "".join(f"{way:>9}" for way in memory)]
    labels = {"copies": "weights to compute with", "buckets": "gradients to send"}
    for name in ("weights", "gradients", "optimiser", "copies", "buckets", "activations", "total"):
        values = "".join(f"{_gib(getattr(one, name)):9.2f}" for one in memory.values())
        lines.append(f"  {labels.get(name, name):<23}{values}")
    return lines


def loader_lines(config: Config[Any, Any], modality: Modality[Any], asked: Allocation) -> list[str]:
    """Memory of the workers that prepare batches, on the host; nothing if there are none."""
    compute, processes = config.compute, asked.processes // asked.nodes
    workers = compute.loaders(torch.device(asked.device))
    if not workers:
        return []
    size = batch_bytes(modality, config.optim.batch_size // asked.processes)
    ahead = batches_ahead(size, workers, compute.prefetch_mb)
    shared, cached = size * workers * ahead, workers * compute.cache_mb * 2**20
    return [
        f"loader       {workers} workers prepare {ahead} batch{'es' if ahead > 1 else ''} each, {size / 2**20:.1f} MiB "
        f"a batch; peak GiB of the host's memory",
        f"  {'':<23}{'process':>9}{'node':>9}",
        f"  {'batches in /dev/shm':<23}{_gib(shared):9.2f}{_gib(shared * processes):9.2f}",
        f"  {'cached samples, up to':<23}{_gib(cached):9.2f}{_gib(cached * processes):9.2f}",
    ]


def _gpu_lines(
    config: Config[Any, Any], memory: dict[Parallel, ProcessMemory], asked: Allocation, flops: float
) -> list[str]:
    used, bf16 = asked.used_gpus, config.compute.precision != "fp32"  # the GPUs listed here have bf16
    precision = "bf16" if bf16 else "fp32"
    lines = [
        f"time         on {used} GPU{'s' if used > 1 else ''} at {UTILISATION:.0%} of peak {precision} FLOP/s; "
        f"a run fits if it leaves {_gib(RESERVED):.0f} GiB for CUDA",
        f"  {'':<12}{'GPU hours':>12}{'hours':>9}" + "".join(f"{'fits ' + way:>11}" for way in memory),
    ]
    for gpu in GPUS:
        fits = "".join(f"{'yes' if gpu.holds(one.total) else 'no':>11}" for one in memory.values())
        total = gpu.hours(flops, bf16)
        lines.append(f"  {gpu.name:<12}{_hours(total):>12}{_hours(total / used):>9}{fits}")
    return lines


def _hours(hours: float) -> str:
    return "< 0.1" if hours < 0.1 else f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _gib(size: int) -> float:
    return size / 2**30
