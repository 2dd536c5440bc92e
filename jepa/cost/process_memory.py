"""Peak memory of one process: measured under DDP, and computed from that measurement under FSDP."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._pytree import tree_map

from jepa.cost.flops import DRAWS, example_view, local_views, networks
from jepa.cost.step_memory import Device, Usage, measure, trained
from jepa.data import Batch
from jepa.data.masks import step_masks
from jepa.distributed import World
from jepa.masking import Masks
from jepa.modality import Modality
from jepa.model import JEPA
from jepa.optim import muon_matrices
from jepa.training.checks import batch_order
from jepa.training.config import Config

Parallel = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Allocation:
    """Request to a cluster: processes, GPUs (0 for CPUs only) and nodes in total, hours per attempt, and attempts."""

    processes: int = 1
    gpus: int = 1
    hours: float = math.inf
    attempts: int = 1
    nodes: int = 1

    @property
    def shards(self) -> int:
        """Processes that share one copy of a model under FSDP: those of a node, if it has several."""
        of_node = self.processes // self.nodes
        return of_node if of_node > 1 else self.processes

    @property
    def device(self) -> Device:
        """Where its processes compute."""
        return "cuda" if self.gpus else "cpu"

    @property
    def used_gpus(self) -> int:
        return min(self.processes, self.gpus)


@dataclass(frozen=True)
class ProcessMemory:
    """Bytes of one process's tensors at its peak, by use.

    copies: weights in compute precision, kept by autocast (DDP) or gathered from the others (FSDP).
    buckets: gradients waiting to be sent, in addition to the process's own.
    """

    weights: int
    gradients: int
    optimiser: int
    copies: int
    buckets: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.copies + self.buckets + self.activations


def step_usage(config: Config[Any, Any], modality: Modality[Any], allocation: Allocation) -> Usage:
    """Measured memory of a process with its share of the batch and, out of several draws, the largest masks."""
    # The order refuses a batch that training would refuse.
    order = batch_order(config, modality, World(0, allocation.processes, torch.device("cpu")))
    masks = max((step_masks(modality, order, step) for step in range(DRAWS)), key=_tokens)
    example, samples = example_view(modality, from_loader=True), len(order.rows)
    view, local = (
        tree_map(lambda leaf: leaf.new_empty((samples, *leaf.shape), device="meta"), one)
        for one in (example, local_views(modality, from_loader=True))
    )
    batch = Batch([view] * modality.views, masks, [], local)
    return measure(config, modality, batch, allocation.device)


def ddp_memory(usage: Usage, model: JEPA, processes: int) -> ProcessMemory:
    """Memory of a process with the whole model. With several processes, DDP always keeps all gradients in buckets."""
    gradients = _bytes(trained(model)) if processes > 1 else usage.gradients
    return ProcessMemory(usage.weights, gradients, usage.optimiser, usage.copies, 0, usage.activations)


def fsdp_memory(usage: Usage, model: JEPA, processes: int, config: Config[Any, Any], device: Device) -> ProcessMemory:
    """Memory of rank 0, which has the largest shards of weights, gradients and optimiser state; all exist at the peak.

    Three parts are gathered at the same time: the parameters outside blocks, one block, and the next block, which is
    prefetched. The gradients of one block (with micro-batches, of all blocks) wait in fp32 to be sent.
    """
    weights, learned, single = list(model.parameters()), trained(model), muon_matrices(model, config.optim)
    whole = usage.weights - _bytes(weights)  # tables of positions
    blocks = model.fsdp_units()
    largest = max(count(block.parameters()) for block in blocks)
    outside = count(weights) - sum(count(block.parameters()) for block in blocks)
    low = 2 if config.compute.uses_bf16(device) else 4  # bytes of a number to compute with
    return ProcessMemory(
        weights=whole + shard_bytes(weights, processes),
        gradients=shard_bytes(learned, processes),
        optimiser=2 * shard_bytes(learned, processes)
        - shard_bytes(single, processes)
        + 4 * (len(learned) - len(single)),
        copies=low * (2 * largest + outside),
        buckets=4 * largest if config.optim.accumulate == 1 else _bytes(learned),
        activations=usage.most_activations,
    )


def shard_bytes(parameters: Iterable[nn.Parameter], processes: int) -> int:
    """Bytes of rank 0's shards: each parameter split along its first axis into equal parts, the last one shorter."""
    return sum(math.ceil(one.shape[0] / processes) * one.shape[1:].numel() * one.element_size() for one in parameters)


def process_memory(
    config: Config[Any, Any], modality: Modality[Any], allocation: Allocation
) -> dict[Parallel, ProcessMemory]:
    """Memory of a process under DDP and, with several processes, under FSDP."""
    usage, model, processes = step_usage(config, modality, allocation), networks(config, modality), allocation.processes
    ways: dict[Parallel, ProcessMemory] = {"ddp": ddp_memory(usage, model, processes)}
    if processes > 1:
        ways["fsdp"] = fsdp_memory(usage, model, allocation.shards, config, allocation.device)
    return ways


def _tokens(masks: Sequence[Masks]) -> int:
    """Tokens of encoder and predictor that determine the memory."""
    return sum(one.context.shape[1] * (1 + one.target.shape[1]) + one.target.shape[1:].numel() for one in masks)


def count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)
