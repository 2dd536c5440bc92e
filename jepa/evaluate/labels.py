"""Labels of a task: draws of a few labels, chance, and caveats about scores."""

import math
from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from jepa.data import seeded
from jepa.evaluate.splits import Splits
from jepa.modality import Split, Task

LOW_SHOT = 12  # labelled examples of each class
FEW_LABELS: dict[str, int | float] = {f"low_shot_{LOW_SHOT}": LOW_SHOT, "low_shot_1pct": 0.01}  # by probe
_FEW_TESTS, _FEW_CHOICES = 100, 20


class UnmeasurableError(ValueError):
    """There are too few samples for a task; the message is one sentence for the user."""


def check_labels(task: Task, labels: Splits[Tensor]) -> None:
    """Raise UnmeasurableError unless every split has a label, and labels of classes are whole numbers."""
    for split, values in zip(get_args(Split), labels.parts(), strict=True):
        known = values[values.isfinite()]
        if not len(known):
            raise UnmeasurableError(
                f"{task.label} is not measured: no sample of the {split} split is labelled with a number"
            )
        fractions = known[known != known.round()]
        if task.kind == "class" and len(fractions):
            raise UnmeasurableError(
                f"{task.label} is not measured: a label of the {split} split is {fractions[0].item():g}; the number of "
                "a class must be whole"
            )


def draw_examples(labels: Tensor, each: int | float, draw: int) -> Tensor:
    """Rows of a few examples of every class: labels int64 [n] -> int64 [few].

    each: number of examples per class (int), or their share (float), at least one. A draw has the same rows for every
    column.
    """
    order = torch.randperm(len(labels), generator=seeded("low shot", draw))
    rows = []
    for label in labels.unique().tolist():
        members = order[labels[order] == label]
        rows.append(members[: each if isinstance(each, int) else max(1, round(each * len(members)))])
    return torch.cat(rows)


def different_draws(labels: Tensor, each: int | float, draws: int) -> list[Tensor]:
    """Rows of each draw; one draw if all would take the same rows."""
    rows = [draw_examples(labels, each, draw) for draw in range(draws)]
    same = all(torch.equal(one.sort().values, rows[0].sort().values) for one in rows)
    return rows[:1] if same else rows


def majority_accuracy(labels: Splits[Tensor]) -> float:
    """Chance of a class task: test accuracy of always predicting the most frequent training class."""
    test = labels.test[labels.test.isfinite()].long()
    return float((test == _majority(labels.train)).double().mean())


def constant_error(labels: Splits[Tensor]) -> float:
    """Chance of a number: root mean square test error of the training mean; for a map, of the mean at each token."""
    overall, means = labels.train.nanmean(), labels.train.nanmean(dim=0)
    prediction = torch.where(means.isfinite(), means, overall)
    return float((labels.test - prediction).square().nanmean().sqrt())


def count_labelled(labels: Tensor) -> int:
    """Number of samples with a label, or with any labelled token."""
    return int(labels.isfinite().flatten(1).any(dim=1).sum() if labels.dim() > 1 else labels.isfinite().sum())


def caveats_of(task: Task, probe: str, labels: Splits[Tensor]) -> list[str]:
    """Why the name of a score may mislead. labels: of each split, [n], of maps [n, N]; NaN where unknown."""
    if task.kind != "class":
        known = labels.train[labels.train.isfinite()]
        return [f"all training labels are {known[0].item():g}"] if known.min() == known.max() else []
    train, validation, test = (split[split.isfinite()].long() for split in labels.parts())
    found = _class_caveats(train, test, task.classes)
    if len(validation.unique()) == 1 < len(train.unique()):
        found.append("its setting is chosen on validation samples of a single class")
    if probe in FEW_LABELS:
        return found + _few_caveats(train, FEW_LABELS[probe])
    classes = len(train.unique())
    if probe.startswith("attentive") and len(train) < LOW_SHOT * classes:  # evaluate.attentive_samples limits them
        found.append(f"trained on {len(train):,} samples of {classes:,} classes, {len(train) / classes:.2g} for each")
    return found


def _class_caveats(train: Tensor, test: Tensor, classes: Sequence[str]) -> list[str]:
    """Caveats of all probes of classes; labels int64 [n]."""
    trained, tested, found = train.unique(), test.unique(), []
    if len(trained) == 1:
        found.append(f"all training labels are of one class, {_name(int(trained[0]), classes)}")
    if unseen := int((~torch.isin(test, trained)).sum()):
        found.append(f"{unseen:,} of {len(test):,} test samples are of classes without a training label")
    number = max(len(classes), len(torch.cat((trained, tested)).unique()))
    if len(tested) < number:
        found.append(f"the test samples are of {len(tested):,} of {number:,} classes")
    majority = _majority(train)
    if not (tested == majority).any():
        found.append(f"chance is 0: no test sample is of the most frequent training class, {_name(majority, classes)}")
    return found


def _few_caveats(labels: Tensor, each: int | float) -> list[str]:
    """Why a draw of a few training labels is not what its name says: labels int64 [n]."""
    counts = labels.unique(return_counts=True)[1]
    if isinstance(each, float):
        share = len(draw_examples(labels, each, 0)) / len(labels)
        if 0.5 * each <= share <= 1.5 * each:
            return []
        return [f"trained on {percentage(share)} of the {len(labels):,} labels, as each class needs at least one"]
    if not (few := int((counts < each).sum())):
        return []
    fewest, most = labels_per_class(labels, each)
    used = f"{fewest} to {most}" if fewest < most else f"{most}"
    return [
        f"{few:,} of {len(counts):,} classes have fewer than {each} labels among the {len(labels):,} training samples; "
        f"the probe is trained on {used} labels a class"
    ]


def labels_per_class(labels: Tensor, each: int) -> list[int]:
    """Fewest and most labels of a class in a draw of `each`: labels int64 [n]."""
    counts = labels.unique(return_counts=True)[1].clamp_max(each)
    return [int(counts.min()), int(counts.max())]


def percentage(share: float) -> str:
    """A share in words: .01 -> 1 %, .1234 -> 12 %."""
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def size_notes(sizes: Mapping[Split, int]) -> list[str]:
    """Notes on splits that have too few samples for reliable scores."""
    notes = []
    if (test := sizes.get("test", _FEW_TESTS)) < _FEW_TESTS:
        notes.append(
            f"Scores are from only {test} test sample{'s' if test > 1 else ''}: "
            f"the standard error of an accuracy is up to {50 / math.sqrt(test):.0f} percentage points."
        )
    if (validation := sizes.get("validation", _FEW_CHOICES)) < _FEW_CHOICES:
        notes.append(f"The settings of the probes are chosen on only {validation} validation samples.")
    if (train := sizes.get("train", _FEW_CHOICES)) < _FEW_CHOICES:
        notes.append(f"Probes are trained on only {train} samples.")
    return notes


def _majority(labels: Tensor) -> int:
    """The most frequent class."""
    classes, counts = labels[labels.isfinite()].long().unique(return_counts=True)
    return int(classes[counts.argmax()])


def _name(label: int, classes: Sequence[str]) -> str:
    return f"'{classes[label]}'" if label < len(classes) else str(label)
