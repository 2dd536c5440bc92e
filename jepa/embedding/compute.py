"""Computes the vectors of some batches and writes them in parts."""

import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa.embedding.parts import PartsFolder, runs
from jepa.embedding.rows import BadRow, RowBatch, RowDataset, Rows, collate_rows
from jepa.embedding.vectors import Embedder, StreamEmbedder
from jepa.evaluate.reading import batches

PART_BYTES = 2**26  # vectors that a process keeps in memory before it writes them


@dataclass(frozen=True, eq=False)
class Computation:
    """Batches of `size` rows. on_batch: called after each batch with the rows that are done, but not yet written.

    save_every: seconds of work that a kill may cost. check: called with unreadable rows that are not yet written.
    """

    rows: Rows
    embedder: Embedder | StreamEmbedder
    parts: PartsFolder
    size: int
    loaders: int
    save_every: float
    check: Callable[[Sequence[BadRow]], None]
    on_batch: Callable[[int], None]

    def compute(self, numbers: NDArray[np.int64]) -> None:
        """Compute and write these batches."""
        wanted = array("q")
        for number in numbers.tolist():
            wanted.extend(range(number * self.size, min((number + 1) * self.size, len(self.rows))))
        loaded = batches(RowDataset(self.rows, wanted), self.size, self.loaders, collate_rows)
        for group in runs(numbers.tolist()):
            buffer = _Buffer(group[0])
            for _ in group:
                batch = next(loaded)
                buffer.add(batch, self.embedder.vectors(batch.views) if batch.rows else {})
                if batch.bad:
                    self.check(buffer.bad)
                if buffer.bytes >= PART_BYTES or time.monotonic() - buffer.started > self.save_every:
                    buffer = self._written(buffer)
                self.on_batch(len(buffer.rows) + len(buffer.bad))
            self._written(buffer)

    def _written(self, buffer: "_Buffer") -> "_Buffer":
        """Write what a buffer holds, if anything -> the next buffer."""
        if buffer.count:
            end = buffer.first + buffer.count
            facts = {"texts": buffer.texts, "bad": [list(one) for one in buffer.bad]}
            self.parts.write(buffer.first, end, facts, buffer.arrays(len(self.rows.tasks)))
            return _Buffer(end)
        return buffer


@dataclass(eq=False)
class _Buffer:
    """What was computed since the last part, from batch `first` on."""

    first: int
    count: int = 0  # of batches
    bytes: int = 0
    started: float = field(default_factory=time.monotonic)
    rows: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    vectors: dict[str, list[Tensor]] = field(default_factory=dict)
    bad: list[BadRow] = field(default_factory=list)

    def add(self, batch: RowBatch, vectors: dict[str, Tensor]) -> None:
        self.count += 1
        self.rows += batch.rows
        self.texts += batch.texts
        self.bad += batch.bad
        if batch.rows:
            self.labels.append(batch.labels)
        for name, values in vectors.items():
            self.vectors.setdefault(name, []).append(values)
            self.bytes += values.nbytes

    def arrays(self, tasks: int) -> dict[str, NDArray[np.generic]]:
        """Arrays of a part."""
        return {
            "rows": np.array(self.rows, np.int64),
            "labels": torch.cat([torch.empty(0, tasks, dtype=torch.float64), *self.labels]).numpy(),
            **{name: torch.cat(values).numpy() for name, values in self.vectors.items()},
        }
