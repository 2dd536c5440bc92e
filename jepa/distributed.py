"""Rank, device, reductions and stop signals; one process is the plain case and needs no process group."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """One process among all of them."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run directory."""
        return self.rank == 0

    def data_parallel(self, model: nn.Module) -> Callable[..., Any]:
        """The model's forward pass, with gradients averaged over processes in the backward pass."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; every process must ask."""
        if self.size == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over processes; every process must ask."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def leave(self) -> None:
        """Wait for the others and close the process group."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()


def join(device: str) -> World:
    """Take part in the run, alone or as one of several processes (RANK, WORLD_SIZE, LOCAL_RANK in the environment).

    device: `auto` takes CUDA where there is one, else the CPU.
    Raises ValueError where CUDA is asked for and absent.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise ValueError("compute.device: cuda was asked for, but torch sees no CUDA device; use auto or cpu")
    # A launcher may show each process only its own GPU; then the index is 0 whatever the local rank.
    place = torch.device("cuda", local_rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(0, 1, place)
    dist.init_process_group("nccl" if cuda else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), place)


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


class StopRequest:
    """Becomes true when somebody asked the run to stop."""

    def __init__(self) -> None:
        self.signal_name = ""

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; a second interrupt from the keyboard is not waited for."""
        if self.signal_name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM and SIGUSR2 (which SLURM sends before it kills) into a request that the loop looks at."""
    request = StopRequest()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    before = {number: signal.signal(number, request.receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
