"""Reading samples for evaluation: which samples of which split, and batches of their views."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from jepa.data import open_split, seeded
from jepa.data.bad_files import described
from jepa.modality import BadSampleError, Label, LabelledSamples, Modality, Sample, Samples, Split, Task
from jepa.probe.protocol import EvaluateConfig

BatchT = TypeVar("BatchT")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TRAIN_SAMPLES, TRAIN_SAMPLES_PER_CLASS = 5_000, 24  # by default; 24 random ones nearly always give a class 12 labels


def evaluated_indices(count: int, limit: int, split: Split) -> list[int]:
    """Indices of the samples of a split to evaluate, in a fixed random order."""
    order: list[int] = torch.randperm(count, generator=seeded("evaluation", split))[:limit].tolist()
    return order


def sample_limits(modality: Modality[Any], config: EvaluateConfig) -> dict[Split, int]:
    """Limits on the evaluated samples of each split."""
    train = config.train_samples or max(TRAIN_SAMPLES, min(TRAIN_SAMPLES_PER_CLASS * _classes(modality), 50_000))
    return {"train": train, "validation": config.validation_samples, "test": config.test_samples}


def raised_limit_note(modality: Modality[Any], config: EvaluateConfig, train: Samples) -> str:
    """A note that many classes raise the number of samples that train the probes; empty if they do not."""
    limit, classes = sample_limits(modality, config)["train"], _classes(modality)
    if config.train_samples or min(limit, len(train)) <= TRAIN_SAMPLES:
        return ""
    return (
        f"Probes are trained on up to {limit:,} samples, {limit // classes} for each of {classes:,} classes; "
        "evaluate.train_samples sets another number."
    )


def _classes(modality: Modality[Any]) -> int:
    """The largest number of classes of any task."""
    return max((len(task.classes) for task in modality.tasks if task.kind == "class"), default=0)


@dataclass(frozen=True)
class SampleSubset:
    """A data set restricted to some indices."""

    samples: Samples
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.samples[self.indices[index]]


def known_labels(samples: Samples, indices: Sequence[int], task: Task) -> Tensor | None:
    """Labels [n] of a task without reading the samples, NaN where unknown; None if the data set cannot tell."""
    if isinstance(samples, SampleSubset):
        return known_labels(samples.samples, [samples.indices[index] for index in indices], task)
    if task.kind == "map" or not isinstance(samples, LabelledSamples):
        return None
    return torch.stack([label_of(samples.labels_of(index), task, 0) for index in indices])


def evaluation_splits(modality: Modality[Any], config: EvaluateConfig) -> dict[Split, Samples]:
    """Samples that train the probes (`train`), choose their settings (`validation`) and give the scores (`test`).

    These are the splits of the same names, unless `scored_split` is `validation`: then training samples that train no
    probe choose the settings, and the validation split gives the scores.
    """
    if config.scored_split == "test":
        return {split: open_split(modality, split) for split in SPLITS}
    train = open_split(modality, "train")
    order = evaluated_indices(len(train), len(train), "train")
    held_out = min(config.validation_samples, len(train) // 5)
    return {
        "train": SampleSubset(train, order[held_out:]),
        "validation": SampleSubset(train, order[:held_out]),
        "test": open_split(modality, "validation"),
    }


@dataclass(frozen=True)
class ViewBatch:
    """Views, baselines and labels of B samples. bad: source and reason of the samples that cannot be read."""

    count: int
    views: Sequence[Any]  # one collated batch [B, ...] per view
    baselines: Mapping[str, Tensor]  # [B, F], averaged over views
    labels: Mapping[str, Tensor]
    bad: list[tuple[str, str]]


def batches(
    samples: Dataset[Any], size: int, loaders: int, collate: Callable[[Sequence[Any]], BatchT]
) -> Iterator[BatchT]:
    """Batches of a data set in order, collated in `loaders` processes."""
    workers = loaders if len(samples) > size else 0  # type: ignore[arg-type]
    yield from DataLoader(samples, size, num_workers=workers, collate_fn=collate, worker_init_fn=_start_worker)


def separate_bad(items: Sequence[Any]) -> tuple[list[Any], list[tuple[str, str]]]:
    """Samples mixed with errors -> the samples, and source and reason of each error."""
    bad = [(item.source, item.reason) for item in items if isinstance(item, BadSampleError)]
    return [item for item in items if not isinstance(item, BadSampleError)], bad


@dataclass(frozen=True)
class ViewDataset(Dataset[Any]):
    """(views, baselines, labels) of each sample, read once; the error itself for a sample that cannot be read.

    averaged: use all views that evaluation averages over; otherwise the single evaluation view.
    """

    modality: Modality[Any]
    samples: Samples
    indices: Sequence[int]
    tasks: Sequence[Task] = ()
    averaged: bool = True

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Any:
        try:
            sample = self.samples[self.indices[index]]
            # Making views may decode the inputs, so it may raise too.
            one_view, all_views = self.modality.evaluation_view, self.modality.evaluation_views
            views = list(all_views(sample.inputs)) if self.averaged else [one_view(sample.inputs)]
        except BadSampleError as error:
            return BadSampleError(*described(error, self.samples, self.indices[index]))
        labels = {task.label: self._label(sample.labels, task) for task in self.tasks}
        of_views = [self.modality.baselines(view) for view in views]
        baselines = {name: torch.stack([one[name].float() for one in of_views]).mean(dim=0) for name in of_views[0]}
        return views, baselines, labels

    def _label(self, labels: Mapping[str, Label], task: Task) -> Tensor:
        try:
            return label_of(labels, task, math.prod(self.modality.grid))
        except (TypeError, ValueError, RuntimeError):
            if task in self.modality.tasks:
                raise
            return torch.tensor(torch.nan)  # the label of a custom metric, which is then reported as not measured


def label_of(labels: Mapping[str, Label], task: Task, tokens: int) -> Tensor:
    """The label of a task: a number, or one per token [N] of a map; NaN where unknown.

    Classes are float64, so that large ids stay exact; a negative one is unknown. Raises an error for anything else.
    """
    unknown = torch.full((tokens,) if task.kind == "map" else (), torch.nan)
    kind = torch.float64 if task.kind == "class" else torch.float32
    label = torch.as_tensor(labels.get(task.label, unknown), dtype=kind).reshape(unknown.shape)
    return label.where(label >= 0, torch.nan) if task.kind == "class" else label


def collate_views(items: Sequence[Any]) -> ViewBatch:
    good, bad = separate_bad(items)
    views, baselines, labels = default_collate(good) if good else ([], {}, {})
    return ViewBatch(len(good), views, baselines, labels, bad)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
