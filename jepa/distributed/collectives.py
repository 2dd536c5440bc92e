"""Tensors over processes: gathering, averaging, and the local part of sharded ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def gradients_shared(forward: Any, shared: bool) -> Iterator[None]:
    """Whether gradients of what is computed within go to the other processes, or wait for a later micro-batch."""
    if is_sharded(forward):
        # Of what learns: networks without gradients may not have run at all, and have nothing to hold back.
        for module in forward.modules():
            if is_sharded(module) and any(parameter.requires_grad for parameter in module.parameters()):
                module.set_requires_gradient_sync(shared, recurse=False)
    if isinstance(forward, DistributedDataParallel) and not shared:
        with forward.no_sync():
            yield
    else:
        yield


# What is sharded is known by what it can do: to import its types takes a second, and few commands meet them.
def is_sharded(model: Any) -> bool:
    """Whether the processes hold a share of the model each (FSDP2)."""
    return hasattr(model, "set_requires_gradient_sync")


def local_shards(module: nn.Module) -> list[Tensor]:
    """The part of every parameter that this process holds: all of it, unless the module is sharded."""
    return [local(parameter) for parameter in module.parameters()]


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return cast(Tensor, tensor.to_local()) if hasattr(tensor, "to_local") else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be spread over processes, in one piece; every process must ask."""
    return cast(Tensor, tensor.full_tensor()) if hasattr(tensor, "full_tensor") else tensor


class _GatherRows(torch.autograd.Function):
    """All processes' rows in order of rank; the gradient of a row is summed over the processes that used it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        ctx.local = len(rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        first = dist.get_rank() * ctx.local
        return gradient[first : first + ctx.local]


def gather_rows(rows: Tensor) -> Tensor:
    """The global batch from every process's rows, with gradients: [b, D] -> [b * processes, D].

    A loss of the gathered rows is the same in all processes; its gradient, summed here and averaged by data
    parallelism, is the gradient that one process with the whole batch would have.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of a tensor without gradient over all processes, each of which must ask; itself where there is one."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
