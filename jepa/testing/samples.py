"""Samples and labels: readable, functions of split and index, different between splits, fitting their tasks."""

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch

from jepa.modality import BadSampleError, Label, Modality, Sample, Split, Task
from jepa.testing.compare import global_seed, is_comparable, same

CHECKED = 8  # first samples of a split
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def first_samples(modality: Modality[Any], split: Split) -> dict[int, Sample]:
    """The readable samples among the first of a split, by index."""
    samples, found = modality.dataset(split), {}
    for index in range(min(CHECKED, len(samples))):
        with suppress(BadSampleError):
            found[index] = samples[index]
    return found


def check_samples(modality: Modality[Any]) -> Iterator[str]:
    """Every split opens, and reading a sample twice gives the same sample."""
    for split in SPLITS:
        count = len(modality.dataset(split))
        if split == "train" and count == 0:
            yield "dataset('train') has no samples to train on"
        first = first_samples(modality, split)
        if count and not first:
            yield f"dataset('{split}'): none of its first {min(CHECKED, count)} samples can be read"
        with global_seed(1):
            again = first_samples(modality, split)
        for index, sample in first.items():
            place, other = f"dataset('{split}')[{index}]", again.get(index)
            if not isinstance(sample, Sample):
                yield f"{place} is a {type(sample).__name__}, not a jepa.modality.Sample"
                return
            if other is None or not same((sample.inputs, dict(sample.labels)), (other.inputs, dict(other.labels))):
                yield f"{place} is another sample when it is read again; it may depend only on its split and index"
                return


def check_splits(modality: Modality[Any]) -> Iterator[str]:
    """The training split and the other splits have different samples."""
    inputs = {split: [sample.inputs for sample in first_samples(modality, split).values()] for split in SPLITS}
    for split in ("validation", "test"):
        pairs = list(zip(inputs["train"], inputs[split], strict=False))
        if pairs and all(is_comparable(one) and same(one, other) for one, other in pairs):
            yield (
                f"dataset('train') and dataset('{split}') begin with the same samples: "
                "does `dataset` use its argument `split`? Evaluation on training samples means nothing"
            )


def check_labels(modality: Modality[Any]) -> Iterator[str]:
    """Every task has its own label, some sample has a value of it, and the values fit the kind of the task."""
    names = [task.label for task in modality.tasks]
    for name in {name for name in names if names.count(name) > 1}:
        yield f"two tasks have the label '{name}'"
    samples = {(split, index): one for split in SPLITS for index, one in first_samples(modality, split).items()}
    for task in modality.tasks:
        values = {place: one.labels[task.label] for place, one in samples.items() if task.label in one.labels}
        if not values:
            labels = ", ".join(sorted({label for sample in samples.values() for label in sample.labels})) or "none"
            where = f"any of the first {CHECKED} samples of a split"
            yield f"task '{task.label}' has no label in {where}, which have: {labels}"
        for (split, index), label in values.items():
            if flaw := _label_flaw(modality, task, label):
                yield f"label '{task.label}' of dataset('{split}')[{index}] {flaw}"
                break


def _label_flaw(modality: Modality[Any], task: Task, label: Label) -> str:
    try:
        values = torch.as_tensor(label, dtype=torch.float32)  # as evaluation reads it
    except (TypeError, ValueError, RuntimeError):
        return f"is {label!r}; expected a number or a tensor, or no entry where it is unknown"
    tokens = math.prod(modality.grid)
    if task.kind == "map" and values.shape != (tokens,):
        return f"is {list(values.shape)}; a map has one number per token of the grid, [{tokens}]"
    if task.kind != "map" and values.dim():
        return f"is {list(values.shape)}; a task of kind {task.kind} takes one number per sample"
    if task.kind != "class" or values.isnan():  # nan: unknown, like a missing entry
        return ""
    number = float(values)
    if number != int(number) or number < 0:
        return f"is {number:g}; a class is an integer from 0"
    if task.classes and number >= len(task.classes):
        return f"is {number:g}, but the task names {len(task.classes)} classes, 0 to {len(task.classes) - 1}"
    return ""
