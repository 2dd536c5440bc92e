"""From features to rows of the table: trained, untrained, raw input and chance by the same protocol."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from jepa.data import seeded
from jepa.evaluate.features import COLUMNS, Column, Features
from jepa.evaluate.probes import Outcome, knn, linear_probe, low_shot, on_principal_axes, ridge
from jepa.evaluate.splits import Examples, Splits
from jepa.modality import Task

Layer = Literal["last", "last4", "tokens"]
LOW_SHOT = 12  # labelled examples of each class
_PROBES = {
    "class": ("linear", "linear_last4", "knn", f"low_shot_{LOW_SHOT}", "low_shot_1pct"),
    "count": ("ridge",),
    "regression": ("ridge",),
    "map": ("ridge",),
}


class UnmeasurableError(ValueError):
    """The samples do not suffice for a task; its message is one sentence for the user."""


def probe_names(task: Task) -> Sequence[str]:
    """What is reported of a task."""
    return _PROBES[task.kind]


@dataclass
class Bench:
    """Features of all splits; their principal axes are computed once."""

    features: Splits[Features]
    low_shot_draws: int
    turned: dict[tuple[Layer, Column], Splits[Tensor]] = field(default_factory=dict)

    def examples(self, task: Task, layer: Layer, column: Column, turned: bool) -> Splits[Examples]:
        """Samples, of maps tokens, whose label is known; `turned` to principal axes for linear probes."""
        if layer == "last4" and column == "raw_input":
            layer = "last"  # it has no layers, so both rows show the same number
        features = self._turned(layer, column) if turned else self._plain(layer, column)
        return features.pair(_known, self.labels(task))

    def labels(self, task: Task) -> Splits[Tensor]:
        """Labels [n], of maps where tokens are kept [m, N]; raises UnmeasurableError where a split has none."""
        labels = self.features.map(
            lambda split: split.labels[task.label][: len(split.tokens["jepa"]) if task.kind == "map" else None]
        )
        for split in ("train", "validation", "test"):
            if not getattr(labels, split).isfinite().any():
                raise UnmeasurableError(f"{task.label} is not measured: no sample of the {split} split is labelled")
        return labels

    def has(self, layer: Layer, column: Column) -> bool:
        """Whether there are such features."""
        return layer != "tokens" or column in self.features.train.tokens

    def _plain(self, layer: Layer, column: Column) -> Splits[Tensor]:
        return self.features.map(lambda split: getattr(split, layer)[column].flatten(0, -2))

    def _turned(self, layer: Layer, column: Column) -> Splits[Tensor]:
        if (layer, column) not in self.turned:
            self.turned[layer, column] = on_principal_axes(self._plain(layer, column))
        return self.turned[layer, column]


def _known(features: Tensor, labels: Tensor) -> Examples:
    known = labels.flatten().isfinite()
    return Examples(features[known], labels.flatten()[known])


def measure(task: Task, probe: str, bench: Bench, advance: Callable[[], None]) -> dict[str, Any]:
    """One row of the table; raises UnmeasurableError. advance: called after each column."""
    labels = bench.labels(task)
    layer: Layer = "tokens" if task.kind == "map" else "last4" if probe == "linear_last4" else "last"
    outcomes: dict[str, list[Outcome]] = {}
    taught = _samples(labels.train)
    for column in (column for column in COLUMNS if bench.has(layer, column)):
        examples = bench.examples(task, layer, column, turned=probe != "knn")
        if task.kind == "class":
            outcomes[column], taught = _classify(task, probe, examples, bench.low_shot_draws)
        else:
            outcomes[column] = [ridge(examples)]
        advance()
    scores = {column: [outcome.score for outcome in of_column] for column, of_column in outcomes.items()}
    kind, setting = ("accuracy", "k" if probe == "knn" else "C") if task.kind == "class" else ("rmse", "alpha")
    row: dict[str, Any] = {"metric": kind, "higher_is_better": kind == "accuracy"}
    for column in COLUMNS:
        row[column] = statistics.fmean(scores[column]) if column in scores else None
    row["chance"] = commonest(labels) if task.kind == "class" else constant(labels)
    row["train_samples"], row["test_samples"] = taught, _samples(labels.test)
    if probe.startswith("low_shot"):
        row["spread"] = {
            column: statistics.stdev(values) if len(values) > 1 else 0.0 for column, values in scores.items()
        }
        row["draws"] = bench.low_shot_draws
    chosen = {column: [outcome.setting for outcome in of_column] for column, of_column in outcomes.items()}
    row["chosen"] = {column: {setting: values if len(values) > 1 else values[0]} for column, values in chosen.items()}
    return row


def _classify(task: Task, probe: str, examples: Splits[Examples], draws: int) -> tuple[list[Outcome], int]:
    """Outcomes of a probe, one a draw, and the number of examples that it was taught with."""
    examples = examples.map(lambda split: Examples(split.features, split.labels.long()))
    labels = examples.train.labels
    classes = max(len(task.classes), *(int(split.labels.max()) + 1 for split in examples.parts()))
    match probe:
        case "knn":
            return [knn(examples, classes)], len(labels)
        case "linear" | "linear_last4":
            return [linear_probe(examples, classes)], len(labels)
        case _:
            each = 0.01 if probe == "low_shot_1pct" else LOW_SHOT
            rows = [draw_examples(labels, each, draw) for draw in range(draws)]
            return low_shot(examples, classes, rows), len(rows[0])


def draw_examples(labels: Tensor, each: int | float, draw: int) -> Tensor:
    """Rows of a few examples of every class: labels int64 [n] -> int64 [few].

    each: so many examples of a class (int), or this share of them (float) but at least one. A draw gives the same rows
    to every column.
    """
    order = torch.randperm(len(labels), generator=seeded("low shot", draw))
    rows = []
    for label in labels.unique().tolist():
        members = order[labels[order] == label]
        rows.append(members[: each if isinstance(each, int) else max(1, round(each * len(members)))])
    return torch.cat(rows)


def commonest(labels: Splits[Tensor]) -> float:
    """Chance of a class task: the test accuracy of naming the class that is commonest in training."""
    guess = labels.train[labels.train.isfinite()].long().bincount().argmax()
    test = labels.test[labels.test.isfinite()].long()
    return float((test == guess).double().mean())


def constant(labels: Splits[Tensor]) -> float:
    """Chance of a number: root mean square test error of the training mean; of a map, of the mean at each token."""
    overall, means = labels.train.nanmean(), labels.train.nanmean(dim=0)
    guess = torch.where(means.isfinite(), means, overall)
    return float((labels.test - guess).square().nanmean().sqrt())


def _samples(labels: Tensor) -> int:
    return int(labels.isfinite().flatten(1).any(dim=1).sum() if labels.dim() > 1 else labels.isfinite().sum())
