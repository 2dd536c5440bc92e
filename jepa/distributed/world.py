"""Rank and device of a process, data parallelism and error barriers."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from inspect import signature
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from jepa.distributed.collectives import is_sharded, mean_over_processes
from jepa.errors import UserError

_TABLES = ("table", "angles", "local_table", "positions")  # constant buffers of our networks, equal on all ranks
# A file system may stall for longer than NCCL's collectives may take; the death of a process is noticed at once.
_PATIENCE = timedelta(hours=2)


class PeerError(UserError, RuntimeError):
    """Another process failed, so this one stops too; the message is for the user."""


def reason_of(error: BaseException) -> str:
    """An error in one sentence for the other processes; the process that raised it prints the traceback."""
    if isinstance(error, UserError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if len(lines) > 1 and lines[1].startswith("Original Traceback"):  # torch's text of an error in a loader process
        return lines[-1]
    return f"{type(error).__name__}: {lines[0]}".removesuffix(": ")


@dataclass(frozen=True)
class World:
    """One process of a run; a single process needs no process group. node_size: processes of each machine."""

    rank: int
    size: int
    device: torch.device
    node_size: int | None = None  # None for one machine

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run directory."""
        return self.rank == 0

    def data_parallel(self, model: nn.Module, varying: bool = False) -> Callable[..., Any]:
        """The model's forward pass; its backward pass averages gradients over processes.

        varying: whether some steps leave some parameters unused.
        """
        if self.size == 1 or is_sharded(model):
            return model
        if varying:  # a step that uses all parameters makes torch warn that others might not exist
            warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
        devices = [self.device] if self.device.type == "cuda" else None
        known = signature(DistributedDataParallel).parameters
        option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before torch 2.13
        buffers: dict[str, Any] = {
            option: any(name.rpartition(".")[2] not in _TABLES for name, _ in model.named_buffers())
        }
        return DistributedDataParallel(
            model, device_ids=devices, find_unused_parameters=varying, gradient_as_bucket_view=True, **buffers
        )

    @cached_property
    def control(self) -> dist.ProcessGroup:
        """Group for errors, stop requests and barriers: on CPUs, so that no GPU waits for them, and patient."""
        group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        assert isinstance(group, dist.ProcessGroup)
        return group

    @contextmanager
    def error_barrier(self) -> Iterator[None]:
        """Error barrier: if the body raises on any rank, all ranks raise (PeerError on the healthy ones).

        Every rank must enter; the body must not communicate.
        """
        try:
            yield
        except Exception as error:
            if self.any(True):
                self.raise_together(error)
        if self.any(False):
            self.raise_together(None)

    def raise_together(self, error: Exception | None) -> NoReturn:
        """Raise this rank's error, or PeerError with those of the others; every rank must call, one with an error."""
        reasons: list[str] = [""] * self.size
        if self.size > 1:
            dist.all_gather_object(reasons, reason_of(error) if error else "", group=self.control)
        if error is not None:
            raise error
        raise PeerError("; ".join(f"process {rank} failed: {reason}" for rank, reason in enumerate(reasons) if reason))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; every process must call."""
        exchange = Exchange(self)
        exchange.start(flag)
        return exchange.finish()[0]

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over processes; every process must call."""
        return mean_over_processes(value)

    def leave(self) -> None:
        """Wait for the other processes and close the process group."""
        if self.size > 1:
            self.any(False)  # unlike a barrier of NCCL, it may wait for the last checkpoint
            dist.destroy_process_group()


class Exchange:
    """Flags of all processes, combined on CPUs while the device computes: true where any process sets one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.flags: list[bool] = []
        self.sent: tuple[Tensor, dist.Work] | None = None

    def start(self, *flags: bool) -> None:
        """Send this process's flags; every process must call."""
        self.flags = list(flags)
        if self.world.size > 1:
            tensor = torch.tensor(flags, dtype=torch.uint8)
            work = dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.world.control, async_op=True)
            self.sent = tensor, work

    def finish(self) -> list[bool]:
        """The combined flags, once every process has sent its own."""
        if self.sent is not None:
            tensor, work = self.sent
            work.wait()
            self.flags, self.sent = list(map(bool, tensor.tolist())), None
        return self.flags


def join(device: str) -> World:
    """Join the run, alone or as one of several processes (RANK, WORLD_SIZE, LOCAL_RANK in the environment).

    device: `auto` is CUDA if torch finds it, otherwise the CPU. It is never MPS, which lacks float64 and would change
    the results of runs on Macs; `mps` must be set explicitly and trains in one process. MPS is untested on real Macs:
    tests mock its availability check. Raises ValueError if the device is absent, or if processes outnumber GPUs.
    """
    chosen = _device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(0, 1, chosen)
    if chosen.type == "mps":
        raise ValueError(f"compute.device: mps trains in one process, not in {size}; use cpu")
    cuda = chosen.type == "cuda"
    dist.init_process_group("nccl" if cuda else "gloo", device_id=chosen if cuda else None)
    return World(dist.get_rank(), dist.get_world_size(), chosen, int(os.environ.get("LOCAL_WORLD_SIZE", size)))


def _device(name: str) -> torch.device:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = "cuda" if available["cuda"] else "cpu"
    if not available.get(name, True):
        raise ValueError(f"compute.device: {name} is set, but torch sees no {name.upper()} device; use auto or cpu")
    if name != "cuda":
        return torch.device(name)
    device = torch.device("cuda", gpu_index(torch.cuda.device_count()))
    torch.cuda.set_device(device)
    return device


def gpu_index(visible: int) -> int:
    """Index of this process's GPU among the visible ones, from LOCAL_RANK or SLURM_LOCALID.

    It is 0 if only one is visible: some launchers set CUDA_VISIBLE_DEVICES per task. Raises ValueError if several are
    visible, but fewer than this machine has processes.
    """
    local_rank = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0")
    if visible == 1:
        return 0
    if local_rank >= visible:
        raise ValueError(
            f"compute.device: process {local_rank} of this machine has no GPU, as only {visible} are visible; "
            f"start at most {visible} processes per machine (torchrun --nproc-per-node, or tasks_per_node)"
        )
    return local_rank
