"""Memory of one process of several: what each holds by itself, and what they share."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._pytree import tree_map

from jepa.cost.flops import example_view, first_masks
from jepa.cost.step_memory import Usage, measure
from jepa.data import Batch
from jepa.distributed import World
from jepa.masking import Masks
from jepa.modality import Modality
from jepa.model import JEPA
from jepa.training.checks import batch_order
from jepa.training.config import Config

Parallel = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Allocation:
    """What is asked of a cluster: processes and GPUs in all (0: CPUs alone), hours of an attempt, attempts."""

    processes: int = 1
    gpus: int = 1
    hours: float = math.inf
    attempts: int = 1

    @property
    def used_gpus(self) -> int:
        """GPUs that have a process."""
        return min(self.processes, self.gpus)


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


def networks(config: Config[Any, Any], modality: Modality[Any]) -> JEPA:
    """The networks of a run without contents."""
    with torch.device("meta"):
        return JEPA(config.model, modality, config.target_kinds)


def step_usage(config: Config[Any, Any], modality: Modality[Any], allocation: Allocation) -> Usage:
    """Measured memory of a process that has its whole share of the batch, with the most tokens of the masks drawn."""
    # Refuses what training would refuse. Any rows of masks do, as those of a step are alike in shape.
    samples = len(batch_order(config, World(0, allocation.processes, torch.device("cpu"))).rows)
    masks = max(first_masks(config, modality), key=_tokens)
    view = tree_map(lambda leaf: leaf.new_empty((samples, *leaf.shape), device="meta"), example_view(modality))
    batch = Batch([view] * modality.views, [one[slice(samples)] for one in masks], [])
    return measure(config, modality, batch, "cuda" if allocation.gpus else "cpu")


def ddp_memory(usage: Usage, model: JEPA, processes: int) -> ProcessMemory:
    """Every process has everything, and several processes lay out gradients once more to send them."""
    buckets = _bytes(trained(model)) if processes > 1 else 0
    return ProcessMemory(usage.weights, usage.gradients, usage.optimiser, usage.copies, buckets, usage.activations)


def fsdp_memory(usage: Usage, model: JEPA, processes: int, config: Config[Any, Any]) -> ProcessMemory:
    """Weights, gradients and optimiser are cut among processes by rows, blocks are gathered as they are needed.

    Gathered at once are the parameters outside of blocks, a block and the one fetched ahead; the gradients of a block
    wait in fp32 to be sent, with micro-batches those of all blocks. The first process is meant, whose shards are the
    largest. All that is cut is there at the peak, whenever that is.
    """
    weights, learned = list(model.parameters()), trained(model)
    whole = usage.weights - _bytes(weights)  # tables of positions
    blocks = model.units()
    largest = max(count(block.parameters()) for block in blocks)
    outside = count(weights) - sum(count(block.parameters()) for block in blocks)
    low = 2 if config.compute.precision == "bf16" else 4  # bytes of a number to compute with
    return ProcessMemory(
        weights=whole + shard_bytes(weights, processes),
        gradients=shard_bytes(learned, processes),
        optimiser=2 * shard_bytes(learned, processes) + 4 * len(learned),
        copies=low * (2 * largest + outside),
        buckets=4 * largest if config.optim.accumulate == 1 else _bytes(learned),
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
    config: Config[Any, Any], modality: Modality[Any], allocation: Allocation
) -> dict[Parallel, ProcessMemory]:
    """Memory of a process for each way to share the work; ddp alone where nothing is shared."""
    usage, model, processes = step_usage(config, modality, allocation), networks(config, modality), allocation.processes
    ways: dict[Parallel, ProcessMemory] = {"ddp": ddp_memory(usage, model, processes)}
    if processes > 1:
        ways["fsdp"] = fsdp_memory(usage, model, processes, config)
    return ways


def _tokens(masks: Sequence[Masks]) -> int:
    """Tokens that encoder and predictor see, as far as they decide memory."""
    return sum(one.context.shape[1] * (1 + one.target.shape[1]) + one.target.shape[1:].numel() for one in masks)


def count(parameters: Iterable[nn.Parameter]) -> int:
    """Numbers in all of them."""
    return sum(parameter.numel() for parameter in parameters)


def _bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)
