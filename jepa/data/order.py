"""The order of samples as a pure function of (seed, step, rank)."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor


def seeded(*key: int | str) -> Generator:
    """A generator whose seed is a hash of the key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True, kw_only=True)
class Order:
    """Order of samples for one process: epoch after epoch, each with its own permutation.

    A step has `accumulate` micro-batches. Each is split among the processes, so that its content does not depend on
    their number.
    """

    seed: int
    batch_size: int  # over all processes
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1

    @property
    def rows(self) -> list[int]:
        """Rows of the global batch for this process, micro-batch after micro-batch."""
        micro_batch = self.batch_size // self.accumulate
        local = micro_batch // self.world_size
        starts = [part * micro_batch + self.rank * local for part in range(self.accumulate)]
        return [row for start in starts for row in range(start, start + local)]

    def numbers(self, step: int) -> list[int]:
        """Running numbers of this process's samples at a step, counted from the start of the run."""
        return [step * self.batch_size + row for row in self.rows]


@lru_cache(maxsize=1)  # 40 MB for ten million samples in every loader; a batch needs two only where an epoch ends
def permutation(seed: int, epoch: int, count: int) -> Tensor:
    """Sample indices of one epoch in order: int32 [count], int64 for more than two billion."""
    order = torch.randperm(count, generator=seeded("order", seed, epoch))
    return order.int() if count < 2**31 else order
