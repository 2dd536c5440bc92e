"""Decoded inputs that all processes of a machine keep together, so that each sample is decoded once there."""

import mmap
import os
import pickle
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from jepa.distributed import World

_TOKEN = 16  # bytes at the start, which tell this memory from any other that a path may lead to
_ALIGNED = 64


class SharedInputs:
    """Memory of `count` places and `limit` bytes, which belongs to no file system and ends with its last process.

    A place is written once. A process that dies while it writes leaves the place empty and its bytes unused. Processes
    that are forked share it; others open `path` while the process that created it lives. Linux alone has such memory.
    """

    def __init__(self, descriptor: int, count: int, limit: int) -> None:
        self.descriptor, self.count, self.limit = descriptor, count, limit
        self.path = f"/proc/{os.getpid()}/fd/{descriptor}"
        self._close = weakref.finalize(self, os.close, descriptor)
        self._memory = mmap.mmap(descriptor, _size(count, limit))
        self.token = self._memory[:_TOKEN]
        self._used = np.frombuffer(self._memory, np.int64, 1, _TOKEN)
        self._places = np.frombuffer(self._memory, np.int64, count, 2 * _TOKEN)  # of entries, plus 1; 0 for none

    @classmethod
    def create(cls, count: int, limit: int) -> "SharedInputs":
        """New memory, of which the system gives pages as they are written."""
        descriptor = os.memfd_create("samples")
        os.ftruncate(descriptor, _size(count, limit))
        os.pwrite(descriptor, os.urandom(_TOKEN), 0)
        return cls(descriptor, count, limit)

    @classmethod
    def opened(cls, path: str, token: bytes, count: int, limit: int) -> "SharedInputs | None":
        """The memory of another process; None if the path does not lead to it, as in another container."""
        try:
            found = cls(os.open(path, os.O_RDWR), count, limit)
        except (OSError, ValueError):  # no such process, or memory of another size
            return None
        return found if found.token == token else None

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedInputs.opened, (self.path, self.token, self.count, self.limit)

    def get(self, index: int) -> Any:
        """The inputs of a sample; None if nobody has stored them. They must not be changed in place."""
        place = int(self._places[index])
        return _unpacked(self._memory, place - 1) if place else None

    def put(self, index: int, inputs: Any) -> None:
        """Store the inputs of a sample, if there is room, nobody has done so, and pickle knows them."""
        try:
            head, body = _packed(inputs)
        except (pickle.PicklingError, TypeError, AttributeError):  # pickle raises each of them for what it cannot store
            return
        size = -(-(_ALIGNED + len(head) + len(body)) // _ALIGNED) * _ALIGNED
        with self._locked():
            start = _start(self.count) + int(self._used[0])
            if self._places[index] or int(self._used[0]) + size > self.limit:
                return
            self._used[0] += size  # before anything is written, so that no other entry comes here
            memory = memoryview(self._memory)
            np.frombuffer(memory, np.int64, 2, start)[:] = len(head), len(body)
            first = start + _ALIGNED
            memory[first : first + len(body)] = body
            memory[first + len(body) : first + len(body) + len(head)] = head
        with self._locked():  # after a call of the system, so that whoever reads the place finds all of the entry
            self._places[index] = start + 1

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold a lock that the system drops when this process dies."""
        import fcntl  # not on every system

        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)


def shared_inputs(world: World, loaders: int, count: int, megabytes: int) -> SharedInputs | None:
    """Memory for all processes of this machine that read samples, `megabytes` for each; every process must call.

    loaders: processes of this one that read samples, 0 if it does so itself. None where one process reads alone, or
    the system has no such memory: then each process keeps what it has decoded.
    """
    machines = [_machine()]
    if world.size > 1:
        machines = [""] * world.size
        dist.all_gather_object(machines, _machine(), group=world.control)
    here = [rank for rank, machine in enumerate(machines) if machine == _machine()]
    readers = len(here) * max(1, loaders)
    own = None
    if readers > 1 and megabytes and hasattr(os, "memfd_create"):
        with suppress(OSError):  # some containers forbid it
            own = SharedInputs.create(count, readers * megabytes * 2**20)
    if world.size == 1:
        return own
    offers: list[Any] = [None] * world.size
    dist.all_gather_object(offers, own and (own.path, own.token, own.count, own.limit), group=world.control)
    offer = offers[here[0]]
    if own is None or offer is None or here[0] == world.rank:
        return own
    return SharedInputs.opened(*offer) or own


def _machine() -> str:
    """What all processes of a machine read, and those of others do not."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text() if path.exists() else ""


def _start(count: int) -> int:
    """Where entries start."""
    return -(-(2 * _TOKEN + 8 * count) // _ALIGNED) * _ALIGNED


def _size(count: int, limit: int) -> int:
    return _start(count) + limit


def _packed(inputs: Any) -> tuple[bytes, memoryview]:
    """Inputs as a pickled head, and the bytes of a tensor, which stay apart so that no reader copies them."""
    if not isinstance(inputs, Tensor) or inputs.device.type != "cpu" or inputs.layout != torch.strided:
        return pickle.dumps((None, inputs)), memoryview(b"")
    order = sorted(range(inputs.ndim), key=inputs.stride, reverse=True)  # as pictures lie in memory: colours innermost
    dense = inputs.detach().permute(order).contiguous()
    head = pickle.dumps((inputs.dtype, (tuple(dense.shape), order)))
    return head, dense.flatten().view(torch.uint8).numpy().data


def _unpacked(memory: mmap.mmap, start: int) -> Any:
    """The inputs of an entry; a tensor lies in the memory itself."""
    head_size, body_size = np.frombuffer(memory, np.int64, 2, start).tolist()
    first = start + _ALIGNED
    dtype, rest = pickle.loads(memory[first + body_size : first + body_size + head_size])
    if dtype is None:
        return rest
    shape, order = rest
    if not body_size:
        return torch.empty(shape, dtype=dtype).permute(_inverse(order))
    body = torch.frombuffer(memory, dtype=torch.uint8, count=body_size, offset=first)
    return body.view(dtype).view(shape).permute(_inverse(order))


def _inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)
