"""Samples with all that matches them, and nearly: read once, seen by all networks that are compared."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from jepa.evaluate.cross_modal.retrieval import Streams
from jepa.evaluate.cross_modal.vectors import StreamEncoder, Vectors
from jepa.evaluate.features import Column
from jepa.evaluate.reading import batches, readable
from jepa.matching import MatchedModality
from jepa.modality import BadSampleError, Samples, Task


class NearMisses(NamedTuple):
    """Second streams that match a sample's first one and others that nearly do: j pairs."""

    owner: Tensor  # [j], the sample of each
    true: Vectors  # [j]
    false: Vectors


@dataclass(frozen=True)
class Seen:
    """What one network makes of samples."""

    streams: Streams
    near: Mapping[str, NearMisses]  # by kind


@dataclass(frozen=True)
class Matches(Dataset[Any]):
    """Views, what they say, near misses and labels of samples, each read once; of one that cannot be read its error."""

    modality: MatchedModality[Any]
    samples: Samples
    indices: Sequence[int]
    tasks: Sequence[Task]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Any:
        try:
            sample = self.samples[self.indices[place]]
            views = list(self.modality.matches(sample.inputs))
            near = dict(self.modality.near_misses(sample.inputs))
        except BadSampleError as error:
            return error
        labels = [float(sample.labels.get(task.label, torch.nan)) for task in self.tasks]
        return _Read(views, list(self.modality.said(sample.inputs)), near, labels)


class _Read(NamedTuple):
    views: list[Any]
    said: list[str]
    near: dict[str, tuple[Any, Any]]
    labels: list[float]


class _Batch(NamedTuple):
    """Samples of a batch. Views are collated by the process that reads them, as few tensors travel better than many."""

    counts: list[int]  # second streams of each
    first: Any  # views, [b, ...]
    second: Any  # views, [m, ...]
    said: list[str]  # [m]
    near: dict[str, tuple[list[int], Any, Any]]  # by kind: of which samples, true and false views
    labels: list[list[float]]
    bad: list[tuple[str, str]]


def _collate(items: Sequence[Any]) -> _Batch:
    good, bad = readable(items)
    if not good:
        return _Batch([], None, None, [], {}, [], bad)
    near = {}
    for kind in sorted({kind for one in good for kind in one.near}):
        places = [place for place, one in enumerate(good) if kind in one.near]
        true, false = (default_collate([good[place].near[kind][side] for place in places]) for side in (0, 1))
        near[kind] = (places, true, false)
    return _Batch(
        counts=[len(one.views) for one in good],
        first=default_collate([one.views[0] for one in good]),
        second=default_collate([view for one in good for view in one.views]),
        said=[said for one in good for said in one.said],
        near=near,
        labels=[one.labels for one in good],
        bad=bad,
    )


@dataclass
class _Parts:
    """Vectors of one network, batch by batch."""

    first: list[Vectors] = field(default_factory=list)
    second: list[Vectors] = field(default_factory=list)
    near: dict[str, list[NearMisses]] = field(default_factory=dict)

    def add(self, matcher: StreamEncoder, batch: _Batch, before: int) -> None:
        """Encode a batch, the first sample of which has the number `before`."""
        self.first.append(matcher.encode(batch.first, 0))
        self.second.append(matcher.encode(batch.second, 1))
        for kind, (places, true, false) in batch.near.items():
            misses = NearMisses(torch.tensor(places) + before, matcher.encode(true, 1), matcher.encode(false, 1))
            self.near.setdefault(kind, []).append(misses)

    def seen(self, owner: Tensor, said: Sequence[str]) -> Seen:
        """All of them."""
        return Seen(
            Streams(join(self.first), join(self.second), owner, said),
            {kind: _joined_misses(found) for kind, found in sorted(self.near.items())},
        )


@dataclass(frozen=True)
class Reader:
    """Asks networks about samples and what matches them. on_bad: called with what cannot be read."""

    modality: MatchedModality[Any]
    matchers: Mapping[Column, StreamEncoder]
    tasks: Sequence[Task]
    samples_at_once: int
    loaders: int
    on_bad: Callable[[list[tuple[str, str]]], None]

    def read(self, samples: Samples, indices: Sequence[int]) -> tuple[dict[Column, Seen], Tensor]:
        """What each network makes of samples, none where none can be read, and the labels of the tasks [n, tasks]."""
        parts = {column: _Parts() for column in self.matchers}
        owners: list[int] = []
        said: list[str] = []
        labels: list[list[float]] = []
        for batch in self._batches(samples, indices):
            for column, matcher in self.matchers.items():
                parts[column].add(matcher, batch, before=len(labels))
            owners += [len(labels) + place for place, count in enumerate(batch.counts) for _ in range(count)]
            said += batch.said
            labels += batch.labels
        if not labels:
            return {}, torch.empty(0, len(self.tasks))
        owner = torch.tensor(owners)
        return {column: part.seen(owner, said) for column, part in parts.items()}, torch.tensor(labels)

    def _batches(self, samples: Samples, indices: Sequence[int]) -> Iterator[_Batch]:
        matches = Matches(self.modality, samples, indices, self.tasks)
        for batch in batches(matches, self.samples_at_once, self.loaders, _collate):
            self.on_bad(batch.bad)
            if batch.counts:
                yield batch


def join(parts: Sequence[Vectors]) -> Vectors:
    """Vectors of several batches as those of one."""
    return Vectors(*(torch.cat(vectors) for vectors in zip(*parts, strict=True)))


def _joined_misses(parts: Sequence[NearMisses]) -> NearMisses:
    owner = torch.cat([part.owner for part in parts])
    return NearMisses(owner, join([part.true for part in parts]), join([part.false for part in parts]))
