"""Samples of a split as they are evaluated: which ones, in which role, and batches of their views."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from jepa.data import open_split, seeded
from jepa.modality import BadSampleError, Label, Modality, Sample, Samples, Split, Task
from jepa.protocol import EvaluateConfig

BatchT = TypeVar("BatchT")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def evaluated_indices(count: int, limit: int, split: Split) -> list[int]:
    """The samples of a split that are looked at, in random order that is always the same."""
    order: list[int] = torch.randperm(count, generator=seeded("evaluation", split))[:limit].tolist()
    return order


@dataclass(frozen=True)
class SampleSubset:
    """Some samples of a data set."""

    samples: Samples
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.samples[self.indices[index]]


def evaluation_splits(modality: Modality[Any], config: EvaluateConfig) -> dict[Split, Samples]:
    """Samples that teach the probes (`train`), choose their settings (`validation`) and are reported on (`test`).

    These are the splits of the same names, unless the validation split is scored.
    """
    if config.scored_split == "test":
        return {split: open_split(modality, split) for split in SPLITS}
    train = open_split(modality, "train")
    order = evaluated_indices(len(train), len(train), "train")
    choosing = min(config.validation_samples, len(train) // 5)
    return {
        "train": SampleSubset(train, order[choosing:]),
        "validation": SampleSubset(train, order[:choosing]),
        "test": open_split(modality, "validation"),
    }


@dataclass(frozen=True)
class ViewBatch:
    """Views of some samples, and what is known about these. bad: source and reason of those that cannot be read."""

    count: int
    views: Sequence[Any]  # each of all samples, tensors [B, ...]
    floors: Mapping[str, Tensor]  # [B, F], averaged over the views
    labels: Mapping[str, Tensor]
    bad: list[tuple[str, str]]


def view_batches(views: "Views", size: int, loaders: int) -> Iterator[ViewBatch]:
    """All samples in order, some at once, prepared by so many processes."""
    yield from batches(views, size, loaders, _collate)


def batches(
    samples: Dataset[Any], size: int, loaders: int, collate: Callable[[Sequence[Any]], BatchT]
) -> Iterator[BatchT]:
    """What a data set with a length gives, in order, some at once, prepared by so many processes."""
    loader: Any = DataLoader(
        samples,
        batch_size=size,
        num_workers=loaders if len(samples) > size else 0,  # type: ignore[arg-type]
        collate_fn=collate,
        worker_init_fn=_start_worker,
    )
    yield from loader


def readable(items: Sequence[Any]) -> tuple[list[Any], list[tuple[str, str]]]:
    """Of samples, and errors in place of some: the samples, and source and reason of the errors."""
    bad = [(item.source, item.reason) for item in items if isinstance(item, BadSampleError)]
    return [item for item in items if not isinstance(item, BadSampleError)], bad


class Views(Dataset[Any]):
    """Evaluation views, floors and labels of samples, each read once; of one that cannot be read its error.

    averaged: the views over which evaluation averages, or else the one evaluation view.
    """

    def __init__(
        self,
        modality: Modality[Any],
        samples: Samples,
        indices: Sequence[int],
        tasks: Sequence[Task],
        averaged: bool = True,
    ) -> None:
        self.modality, self.samples, self.indices, self.tasks = modality, samples, indices, tasks
        self.averaged = averaged
        self.token_count = math.prod(modality.grid)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Any:
        try:
            sample = self.samples[self.indices[place]]
            views = self._views(sample.inputs)  # which may be what decodes it
        except BadSampleError as error:
            return error
        labels = {task.label: self._label(sample.labels, task) for task in self.tasks}
        return views, self._floors(views), labels

    def _views(self, inputs: Any) -> list[Any]:
        if self.averaged:
            return list(self.modality.evaluation_views(inputs))
        return [self.modality.evaluation_view(inputs)]

    def _floors(self, views: Sequence[Any]) -> dict[str, Tensor]:
        of_views = [self.modality.floors(view) for view in views]
        return {name: torch.stack([one[name].float() for one in of_views]).mean(dim=0) for name in of_views[0]}

    def _label(self, labels: Mapping[str, Label], task: Task) -> Tensor:
        unknown = torch.full((self.token_count,) if task.kind == "map" else (), torch.nan)
        try:
            return torch.as_tensor(labels.get(task.label, unknown), dtype=torch.float32).reshape(unknown.shape)
        except (TypeError, ValueError, RuntimeError):
            if task in self.modality.tasks:
                raise
            return unknown  # no number, for a measure that is then told not to be taken


def _collate(items: Sequence[Any]) -> ViewBatch:
    good, bad = readable(items)
    views, floors, labels = default_collate(good) if good else ([], {}, {})
    return ViewBatch(len(good), views, floors, labels, bad)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
