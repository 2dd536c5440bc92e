"""What a run takes, told before it starts: parameters, FLOPs, memory of a GPU, GPU hours, and what will not do."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from jepa.config import ConfigError
from jepa.data import Batch
from jepa.flops import example_view, first_masks, run_flops
from jepa.gpus import GPUS, RESERVED, UTILISATION, Gpu
from jepa.masking import Masks
from jepa.memory import Usage, measure
from jepa.modality import Modality
from jepa.model import JEPA
from jepa.train import Config
from jepa.transformer import Block, CrossBlock

Parallel = str  # ddp | fsdp


@dataclass(frozen=True)
class Allocation:
    """What is asked of a cluster: processes in all, GPUs in all (0: CPUs alone), hours until the time limit of a job."""

    processes: int = 1
    gpus: int = 1
    hours: float | None = None


@dataclass(frozen=True)
class ProcessMemory:
    """Bytes of tensors of one process at its peak, by what they are for.

    copies: weights in the precision of the computation, kept by autocast (ddp) or gathered from all processes (fsdp).
    buckets: gradients laid out for sending.
    """

    weights: int
    gradients: int
    optimiser: int
    copies: int
    buckets: int
    activations: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.gradients + self.optimiser + self.copies + self.buckets + self.activations


def networks(config: Config[Any], modality: Modality[Any]) -> JEPA:
    """The networks of a run without contents."""
    with torch.device("meta"):
        return JEPA(config.model, modality, config.target_kinds)


def step_usage(config: Config[Any], modality: Modality[Any], allocation: Allocation) -> Usage:
    """Measured memory of a process that has its whole share of the batch, with the most tokens of the masks drawn."""
    passes = _passes(config)
    samples, rest = divmod(config.optim.batch_size, allocation.processes * passes)
    if rest or samples < 2:
        raise ConfigError(
            f"optim.batch_size: {config.optim.batch_size} samples do not divide among {allocation.processes} processes "
            "into 2 or more each" + (f" in {passes} passes" if passes > 1 else "")
        )
    masks = max(first_masks(config, modality), key=_tokens)
    view = tree_map(lambda leaf: leaf.new_empty((samples, *leaf.shape), device="meta"), example_view(modality))
    batch = Batch(view, [one[slice(samples)] for one in masks], [])
    return measure(config, modality, batch, passes, "cuda" if allocation.gpus else "cpu")


def ddp_memory(usage: Usage, model: JEPA, processes: int) -> ProcessMemory:
    """Every process has everything, and several processes lay out gradients once more to send them."""
    buckets = _bytes(trained(model)) if processes > 1 else 0
    return ProcessMemory(usage.weights, usage.gradients, usage.optimiser, usage.copies, buckets, usage.activations)


def fsdp_memory(usage: Usage, model: JEPA, processes: int, low: int) -> ProcessMemory:
    """Weights, gradients and optimiser are cut among processes by rows, blocks are gathered as they are needed.

    low: bytes of a number in the precision of the computation. Gathered at once are the parameters outside of blocks,
    a block and the one fetched ahead; the gradients of a block wait in fp32 to be sent. The first process is meant,
    whose shards are the largest. All that is cut is there at the peak, whenever that is.
    """
    weights, learned = list(model.parameters()), trained(model)
    whole = usage.weights - _bytes(weights)  # tables of positions
    blocks = [module for module in model.modules() if isinstance(module, Block | CrossBlock)]
    largest = max(_count(block.parameters()) for block in blocks)
    outside = _count(weights) - sum(_count(block.parameters()) for block in blocks)
    return ProcessMemory(
        weights=whole + shard_bytes(weights, processes),
        gradients=shard_bytes(learned, processes),
        optimiser=2 * shard_bytes(learned, processes) + 4 * len(learned),
        copies=low * (2 * largest + outside),
        buckets=4 * largest,
        activations=usage.most_activations,
    )


def shard_bytes(parameters: Iterable[nn.Parameter], processes: int) -> int:
    """Bytes of the first process's rows, each parameter cut along its first axis into equal parts, the last shorter."""
    return sum(
        math.ceil(one.shape[0] / processes) * (one.numel() // one.shape[0]) * one.element_size() for one in parameters
    )


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that get a gradient."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def process_memory(
    config: Config[Any], modality: Modality[Any], allocation: Allocation
) -> dict[Parallel, ProcessMemory]:
    """Memory of a process for each way to share the work; ddp alone where nothing is shared."""
    usage, model, processes = step_usage(config, modality, allocation), networks(config, modality), allocation.processes
    ways = {"ddp": ddp_memory(usage, model, processes)}
    if processes > 1:
        ways["fsdp"] = fsdp_memory(usage, model, processes, 2 if config.compute.precision == "bf16" else 4)
    return ways


def describe(config: Config[Any], modality: Modality[Any], allocation: Allocation | None = None) -> str:
    """What a run takes, for people; without an allocation, as one process on one GPU.

    Raises ConfigError where the batch does not divide among the processes, DataError where nothing tells what a view
    looks like.
    """
    asked = allocation or Allocation()
    flops = run_flops(config, modality)
    memory = process_memory(config, modality, asked)
    parts = [_size(config, modality, flops), _memory_lines(config, memory, asked)]
    if asked.gpus:
        parts.append(_gpu_lines(config, memory, asked, flops))
        parts.append([f"warning: {line}" for line in warnings(config, memory, asked, flops)])
    return "\n\n".join("\n".join(part) for part in parts if part)


def warnings(config: Config[Any], memory: dict[Parallel, ProcessMemory], asked: Allocation, flops: float) -> list[str]:
    """What will not fit, not finish, or not be used: a sentence each."""
    found = []
    if asked.processes < asked.gpus:
        found.append(f"{asked.processes} processes use {asked.processes} of {asked.gpus} GPUs")
    chosen = _parallel(config, memory)
    small = [gpu for gpu in GPUS if not gpu.holds(memory[chosen].total)]
    if small:
        need = _gib(memory[chosen].total + RESERVED)
        found.append(f"{need:.1f} GiB with {chosen} do not fit {_names(small)}; {_advice(config, memory, small)}")
    slow = [gpu for gpu in GPUS if asked.hours is not None and _wall(config, gpu, asked, flops) > asked.hours]
    if slow:
        times = ", ".join(f"{gpu.name} ({_wall(config, gpu, asked, flops):.3g} h)" for gpu in slow)
        found.append(f"a time limit of {asked.hours:g} h ends before the run does on {times}")
    return found


def _advice(config: Config[Any], memory: dict[Parallel, ProcessMemory], small: Sequence[Gpu]) -> str:
    chosen = _parallel(config, memory)
    saved = [way for way in memory if way != chosen and all(gpu.holds(memory[way].total) for gpu in small)]
    if saved:
        return f"compute.parallel={saved[0]} does"
    if not config.compute.activation_checkpointing:
        return "compute.activation_checkpointing=true needs less"
    return "ask for more GPUs, or take a smaller optim.batch_size"


def _size(config: Config[Any], modality: Modality[Any], flops: float) -> list[str]:
    model, drawn = networks(config, modality), first_masks(config, modality)
    context = round(fmean(one.context.shape[1] for masks in drawn for one in masks))
    target = round(fmean(one.target.shape[1:].numel() for masks in drawn for one in masks))
    sets, batch = len(drawn[0]), config.optim.batch_size
    samples = config.steps * batch
    encoder, predictor = _count(model.context_encoder.parameters()), _count(model.predictor.parameters())
    return [
        f"parameters   encoder {encoder:,}, predictor {predictor:,}",
        f"tokens       {len(modality.positions)} a sample on a grid of {' x '.join(map(str, modality.grid))}; "
        f"about {context} context, {target} target" + (f" in each of {sets} sets" if sets > 1 else ""),
        f"FLOPs        {flops / samples / 1e9:.3g} G a sample, {flops / config.steps / 1e12:.3g} T a step of {batch:,} "
        f"samples, {flops:.3g} in all",
        f"run          {config.steps:,} steps, {samples:,} samples",
    ]


def _memory_lines(config: Config[Any], memory: dict[Parallel, ProcessMemory], asked: Allocation) -> list[str]:
    samples = config.optim.batch_size // asked.processes // _passes(config)
    passes = f", {_passes(config)} passes a step" if _passes(config) > 1 else ""
    recomputed = ", activations computed again" if config.compute.activation_checkpointing else ""
    about = f"GiB a process, {samples:,} samples a pass{passes}, {config.compute.precision}{recomputed}"
    lines = [f"memory       {about}", " " * 25 + "".join(f"{way:>9}" for way in memory)]
    labels = {"copies": "weights to compute with", "buckets": "gradients to send"}
    for name in ("weights", "gradients", "optimiser", "copies", "buckets", "activations", "total"):
        values = "".join(f"{_gib(getattr(one, name)):9.2f}" for one in memory.values())
        lines.append(f"  {labels.get(name, name):<23}{values}")
    return lines


def _gpu_lines(
    config: Config[Any], memory: dict[Parallel, ProcessMemory], asked: Allocation, flops: float
) -> list[str]:
    used, precision = _used_gpus(asked), config.compute.precision
    lines = [
        f"time         on {used} GPU{'s' if used > 1 else ''} at {UTILISATION:.0%} of their peak in {precision}; "
        f"fits with {_gib(RESERVED):.0f} GiB to spare for CUDA",
        f"  {'':<12}{'GPU hours':>12}{'hours':>9}" + "".join(f"{'fits ' + way:>11}" for way in memory),
    ]
    for gpu in GPUS:
        fits = "".join(f"{'yes' if gpu.holds(one.total) else 'NO':>11}" for one in memory.values())
        total = gpu.hours(flops, precision)
        lines.append(f"  {gpu.name:<12}{_duration(total):>12}{_duration(total / used):>9}{fits}")
    return lines


def _duration(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _wall(config: Config[Any], gpu: Gpu, asked: Allocation, flops: float) -> float:
    return gpu.hours(flops, config.compute.precision) / _used_gpus(asked)


def _used_gpus(asked: Allocation) -> int:
    return min(asked.processes, asked.gpus)


def _passes(config: Config[Any]) -> int:
    return int(getattr(config.optim, "accumulate", 1))


def _parallel(config: Config[Any], memory: dict[Parallel, ProcessMemory]) -> Parallel:
    way = str(getattr(config.compute, "parallel", "ddp"))
    return way if way in memory else "ddp"


def _tokens(masks: Sequence[Masks]) -> int:
    """Tokens that encoder and predictor see, as far as they decide memory."""
    return sum(one.context.shape[1] * (1 + one.target.shape[1]) + one.target.shape[1:].numel() for one in masks)


def _names(gpus: Sequence[Gpu]) -> str:
    return ", ".join(gpu.name for gpu in gpus)


def _gib(size: int) -> float:
    return size / 2**30


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)
