"""Which samples a step sees, as a pure function of (seed, step, rank)."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor


def seeded(*key: int | str) -> Generator:
    """A generator that is a function of the key alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True, kw_only=True)
class Order:
    """Which samples a step of a process sees: epoch after epoch, each a permutation of its own.

    A step is computed in `accumulate` micro-batches, and each of them is shared among the processes, so that what is in
    a micro-batch does not depend on the number of processes.
    """

    seed: int
    batch_size: int  # over all processes
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1

    @property
    def rows(self) -> list[int]:
        """Rows of the global batch that are this process's, one micro-batch after the other."""
        together = self.batch_size // self.accumulate
        local = together // self.world_size
        starts = [part * together + self.rank * local for part in range(self.accumulate)]
        return [row for start in starts for row in range(start, start + local)]

    def numbers(self, step: int) -> list[int]:
        """Running numbers, counted from the start of the run, of this process's samples at a step."""
        return [step * self.batch_size + row for row in self.rows]


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, count: int) -> Tensor:
    """Order of one epoch: int64 [count]."""
    return torch.randperm(count, generator=seeded("order", seed, epoch))
