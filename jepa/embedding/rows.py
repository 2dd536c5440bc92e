"""The rows of an embedding: the samples of one or all splits, or windows of them, with names and labels."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from jepa.data import open_split
from jepa.data.bad_files import name_of
from jepa.data.summary import digest_of, summary_of
from jepa.embedding.settings import SPLITS, Extent
from jepa.embedding.windows import WindowedModality
from jepa.matching import MatchedModality
from jepa.modality import BadSampleError, Label, Modality, Sample, Samples, Split, Task


@dataclass(frozen=True)
class Chain:
    """The samples of several splits, one split after another."""

    splits: Sequence[tuple[Split, Samples]]

    @classmethod
    def of(cls, modality: Modality[Any], split: Split | None) -> "Chain":
        """A split, or every sample once: splits that are also part of the training set are left out."""
        if split is not None:
            return cls([(split, open_split(modality, split))])
        training = open_split(modality, "train")
        others = [one for one in SPLITS if one != "train" and one not in summary_of(training).shared]
        return cls([("train", training), *((one, open_split(modality, one)) for one in others)])

    def __len__(self) -> int:
        return sum(len(samples) for _, samples in self.splits)

    def __getitem__(self, index: int, /) -> Sample:
        _, samples, place = self._find(index)
        # Each sample is needed once, so nothing is prepared for staying in memory.
        read: Callable[[int], Sample] = getattr(samples, "read_once", samples.__getitem__)  # of PreparedSamples
        return read(place)

    def name(self, index: int) -> str:
        """The sample's path or other name; its split and index where the source has no names."""
        split, samples, place = self._find(index)
        name = name_of(samples, place)
        return f"{split}{name}" if name == f"[{place}]" else name

    def split(self, index: int) -> Split:
        """The split that a sample belongs to."""
        return self._find(index)[0]

    def digests(self) -> dict[str, str]:
        """What identifies the samples of each split: their number, and a digest of their names if they have any."""
        return {split: f"{len(samples):,} samples {digest_of(samples)}".strip() for split, samples in self.splits}

    def _find(self, index: int) -> tuple[Split, Samples, int]:
        for split, samples in self.splits:
            if index < len(samples):
                return split, samples, index
            index -= len(samples)
        raise IndexError(index)


@dataclass(frozen=True, eq=False)
class WindowTable:
    """Windows [R] of the samples in order: sample, start and end in seconds; NaN for a sample that cannot be read."""

    samples: NDArray[np.int64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows: one for each sample, or for each window of it.

    tasks: whose labels are read. needs_text: whether samples without a second stream are bad.
    """

    modality: Modality[Any]
    chain: Chain
    tasks: Sequence[Task]
    windows: WindowTable | None = None
    needs_text: bool = False

    def __len__(self) -> int:
        return len(self.chain) if self.windows is None else len(self.windows.samples)

    @property
    def has_text(self) -> bool:
        """Whether each row has the text of a second stream."""
        return isinstance(self.modality, MatchedModality) and self.windows is None

    def sample(self, row: int) -> int:
        """Index of a row's sample."""
        return row if self.windows is None else int(self.windows.samples[row])

    def read(self, row: int) -> "RowViews":
        """The views of a row, its labels, and the text of its second stream; raises BadSampleError."""
        sample = self.chain[self.sample(row)]
        text, views = "", list[Any]()
        if self.windows is not None:
            views = [self._window(sample.inputs, row)]
        elif isinstance(self.modality, MatchedModality):
            views = [self.modality.matches(sample.inputs)[0]]
            text = self.modality.descriptions(sample.inputs)[0]
            if self.needs_text and not text:
                reason = f"it has no text; --stream {self.modality.streams[0].name} embeds what it has"
                raise BadSampleError(self.chain.name(row), reason)
        else:
            views = list(self.modality.evaluation_views(sample.inputs))
        labels = [_label(sample.labels, task) for task in self.tasks]
        return RowViews(row, views, labels, text)

    def _window(self, inputs: Any, row: int) -> Any:
        assert isinstance(self.modality, WindowedModality)
        assert self.windows is not None
        start, end = float(self.windows.starts[row]), float(self.windows.ends[row])
        if np.isnan(start):
            self.modality.windows(inputs, 1.0, 1.0, "s")  # raises the error that it raised before
            raise BadSampleError(self.chain.name(self.sample(row)), "its length could not be read at first")
        return self.modality.window_view(inputs, start, end)


def _label(labels: Mapping[str, Label], task: Task) -> float:
    """The label of a task, NaN where unknown."""
    label = float(labels.get(task.label, np.nan))
    return np.nan if task.kind == "class" and label < 0 else label


class RowViews(NamedTuple):
    """A row as read. text: of the second of two matching streams."""

    row: int
    views: list[Any]
    labels: list[float]
    text: str


class BadRow(NamedTuple):
    """A row that cannot be read, with the name of its sample and the reason."""

    row: int
    source: str
    reason: str


class RowBatch(NamedTuple):
    """B rows that can be read, and those that cannot. end: of the rows of the batch."""

    rows: list[int]
    views: list[Any]  # one collated batch [B, ...] for each view
    labels: Tensor  # float64 [B, tasks], NaN where unknown
    texts: list[str]
    bad: list[BadRow]


@dataclass(frozen=True, eq=False)
class RowDataset(Dataset[Any]):
    """Some rows, each read as a RowViews, or as a BadRow."""

    rows: Rows
    numbers: "array[int]"

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int, /) -> RowViews | BadRow:
        row = self.numbers[place]
        try:
            return self.rows.read(row)
        except BadSampleError as error:
            return BadRow(row, error.source or self.rows.chain.name(self.rows.sample(row)), error.reason)


def collate_rows(items: Sequence[RowViews | BadRow]) -> RowBatch:
    """Rows as read -> a batch."""
    good = [item for item in items if isinstance(item, RowViews)]
    views = default_collate([item.views for item in good]) if good else []
    labels = torch.tensor([item.labels for item in good], dtype=torch.float64)
    bad = [item for item in items if isinstance(item, BadRow)]
    return RowBatch([item.row for item in good], views, labels, [item.text for item in good], bad)


@dataclass(frozen=True, eq=False)
class SpanDataset(Dataset[Any]):
    """The windows of each sample: an array [windows, 2] of starts and ends, NaN for one that cannot be read."""

    modality: WindowedModality
    chain: Chain
    window: Extent
    stride: Extent

    def __len__(self) -> int:
        return len(self.chain)

    def __getitem__(self, index: int, /) -> NDArray[np.float64]:
        try:
            spans = self.modality.windows(
                self.chain[index].inputs, self.window.length, self.stride.length, self.window.unit
            )
        except BadSampleError:
            spans = [(np.nan, np.nan)]
        return np.array(spans, dtype=np.float64).reshape(-1, 2)


def window_table(spans: Sequence[NDArray[np.float64]]) -> WindowTable:
    """The windows of all samples, given those of each."""
    samples = np.repeat(np.arange(len(spans)), [len(one) for one in spans])
    starts, ends = np.concatenate([*spans, np.empty((0, 2))]).T
    return WindowTable(samples, np.ascontiguousarray(starts), np.ascontiguousarray(ends))
