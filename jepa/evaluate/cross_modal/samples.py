"""Samples with their matching second streams and near misses: read once, encoded by all networks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import Dataset, default_collate

from jepa.data.bad_files import described
from jepa.evaluate.cross_modal.retrieval import RetrievalSet
from jepa.evaluate.cross_modal.vectors import StreamEncoder, Vectors
from jepa.evaluate.features import Column
from jepa.evaluate.reading import batches, label_of, separate_bad
from jepa.matching import MatchedModality
from jepa.modality import BadSampleError, Samples, Task

T = TypeVar("T")


class NearMisses(NamedTuple):
    """Pairs of a second stream that matches a sample and one that almost does."""

    owner: Tensor  # [j] sample of each pair
    true: Vectors  # [j]
    false: Vectors  # [j]


@dataclass(frozen=True)
class EncodedSamples:
    """Samples as one network encodes them."""

    pairs: RetrievalSet
    near_misses: Mapping[str, NearMisses]  # by kind


EncodedByColumn = Mapping[Column, EncodedSamples]


@dataclass(frozen=True)
class PairDataset(Dataset[Any]):
    """A `_PairSample` per sample, read once; the error itself for a sample that cannot be read."""

    modality: MatchedModality[Any]
    samples: Samples
    indices: Sequence[int]
    tasks: Sequence[Task]
    first_only: bool = False  # only the first match of a sample, and no near misses

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Any:
        try:
            sample = self.samples[self.indices[index]]
            views = list(self.modality.matches(sample.inputs))
            near_misses = {} if self.first_only else dict(self.modality.near_misses(sample.inputs))
        except BadSampleError as error:
            return BadSampleError(*described(error, self.samples, self.indices[index]))
        labels = [float(label_of(sample.labels, task, 0)) for task in self.tasks]
        count = 1 if self.first_only else len(views)
        return _PairSample(views[:count], list(self.modality.descriptions(sample.inputs))[:count], near_misses, labels)


class _PairSample(NamedTuple):
    views: list[Any]  # with the first stream and one of the second streams each
    descriptions: list[str]  # of the second streams
    near_misses: dict[str, tuple[Any, Any]]  # by kind: true and false view
    labels: list[float]


class _Batch(NamedTuple):
    """Samples of a batch, collated by the process that reads them: few large tensors are cheaper to send than many."""

    counts: list[int]  # number of second streams of each sample
    first: Any  # views [B, ...]
    second: Any  # views [m, ...]
    descriptions: list[str]  # [m]
    near_misses: dict[str, tuple[list[int], Any, Any]]  # by kind: rows of the samples, true and false views
    labels: list[list[float]]
    bad: list[tuple[str, str]]


def collate_pairs(items: Sequence[Any]) -> _Batch:
    good, bad = separate_bad(items)
    if not good:
        return _Batch([], None, None, [], {}, [], bad)
    near_misses = {}
    for kind in sorted({kind for one in good for kind in one.near_misses}):
        rows = [row for row, one in enumerate(good) if kind in one.near_misses]
        true, false = (default_collate([good[row].near_misses[kind][side] for row in rows]) for side in (0, 1))
        near_misses[kind] = (rows, true, false)
    return _Batch(
        counts=[len(one.views) for one in good],
        first=default_collate([one.views[0] for one in good]),
        second=default_collate([view for one in good for view in one.views]),
        descriptions=[text for one in good for text in one.descriptions],
        near_misses=near_misses,
        labels=[one.labels for one in good],
        bad=bad,
    )


@dataclass(frozen=True)
class PairReader:
    """Reads samples with their second streams and encodes them. on_bad: called with samples that cannot be read."""

    modality: MatchedModality[Any]
    encoders: Mapping[Column, StreamEncoder]
    tasks: Sequence[Task]
    samples_at_once: int
    loaders: int
    on_bad: Callable[[list[tuple[str, str]]], None]

    def read(self, samples: Samples, indices: Sequence[int]) -> tuple[EncodedByColumn, Tensor]:
        """Encoded samples by column, empty if none can be read, and the labels of the tasks [n, tasks]."""
        pairs: dict[Column, list[tuple[Vectors, Vectors]]] = {column: [] for column in self.encoders}
        near_misses: dict[Column, dict[str, list[NearMisses]]] = {column: {} for column in self.encoders}
        owners: list[int] = []
        descriptions: list[str] = []
        labels: list[list[float]] = []
        dataset = PairDataset(self.modality, samples, indices, self.tasks)
        for batch in batches(dataset, self.samples_at_once, self.loaders, collate_pairs):
            self.on_bad(batch.bad)
            if not batch.counts:
                continue
            for column, encoder in self.encoders.items():
                pairs[column].append((encoder.encode(batch.first, 0), encoder.encode(batch.second, 1)))
                for kind, (rows, true, false) in batch.near_misses.items():
                    owner = torch.tensor(rows) + len(labels)
                    misses = NearMisses(owner, encoder.encode(true, 1), encoder.encode(false, 1))
                    near_misses[column].setdefault(kind, []).append(misses)
            owners += [len(labels) + row for row, count in enumerate(batch.counts) for _ in range(count)]
            descriptions += batch.descriptions
            labels += batch.labels
        if not labels:
            return {}, torch.empty(0, len(self.tasks))
        encoded = {}
        for column in self.encoders:
            found = {kind: concatenate(parts) for kind, parts in sorted(near_misses[column].items())}
            of_pairs = RetrievalSet(*concatenate(pairs[column]), torch.tensor(owners), descriptions)
            encoded[column] = EncodedSamples(of_pairs, found)
        return encoded, torch.tensor(labels, dtype=torch.float64)


def concatenate(parts: Sequence[T]) -> T:
    """Vectors, or near misses, of several batches in one."""
    return tree_map(lambda *tensors: torch.cat(tensors), *parts)  # type: ignore[no-any-return]
