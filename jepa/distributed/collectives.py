"""Gather and average tensors over processes; access the local part of sharded tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def gradients_shared(forward: Any, shared: bool) -> Iterator[None]:
    """Average gradients over processes in backward passes of the body, or keep them local until a later micro-batch."""
    if is_sharded(forward):
        # Trained modules only: the others may not have run and have no gradients.
        for module in forward.modules():
            if is_sharded(module) and any(parameter.requires_grad for parameter in module.parameters()):
                module.set_requires_gradient_sync(shared, recurse=False)
    if isinstance(forward, DistributedDataParallel) and not shared:
        with forward.no_sync():
            yield
    else:
        yield


# Sharded modules are recognised by a method: importing their types takes a second, and few commands need them.
def is_sharded(model: Any) -> bool:
    """Whether each process holds a shard of the model (FSDP2)."""
    return hasattr(model, "set_requires_gradient_sync")


def local_shards(module: nn.Module) -> list[Tensor]:
    """Local part of every parameter: all of it, unless the module is sharded."""
    return [local(parameter) for parameter in module.parameters()]


def local(tensor: Tensor) -> Tensor:
    """Local part of a tensor: all of it, unless it is sharded."""
    return cast(Tensor, tensor.to_local()) if hasattr(tensor, "to_local") else tensor


def whole(tensor: Tensor) -> Tensor:
    """The unsharded form of a tensor that may be sharded; every process must call."""
    return cast(Tensor, tensor.full_tensor()) if hasattr(tensor, "full_tensor") else tensor


class _GatherRows(torch.autograd.Function):
    """Rows of all processes in order of rank; the gradient of a row is summed over processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        ctx.local = len(rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)  # autograd may share it with others
        dist.all_reduce(gradient)
        return gradient[own_rows(ctx.local)]


def gather_rows(rows: Tensor) -> Tensor:
    """Gather the global batch from the rows of all processes, with gradients: [b, D] -> [b * processes, D].

    Every process computes the same loss of the gathered rows, or a loss whose mean over processes is wanted. Its
    gradient, summed here and averaged by data parallelism, equals the gradient of one process with the whole batch.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


def own_rows(count: int) -> slice:
    """Where `gather_rows` puts this process's rows, `count` in each process."""
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    return slice(rank * count, (rank + 1) * count)


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of a tensor over all processes, without gradient; every process must call."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
