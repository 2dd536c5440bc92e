"""From features to rows of the table: trained, untrained, floors and chance by the same protocol."""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from jepa.data import seeded
from jepa.evaluate.features import ENCODERS, Column, Features
from jepa.evaluate.probes.attentive import ProbeTraining, Sequences, attentive_probe
from jepa.evaluate.probes.custom import FunctionError, function_row
from jepa.evaluate.probes.linear import Outcome, knn, linear_probe, low_shot, on_principal_axes, ridge
from jepa.evaluate.splits import Examples, Splits
from jepa.modality import Task
from jepa.protocol import FunctionTask

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


def probe_names(task: Task, attentive: Sequence[int] | None, layers: int) -> Sequence[str]:
    """What is reported of a task on an encoder of so many layers.

    attentive: numbers of blocks of attentive probes, None for those that the task asks for.
    """
    if task.kind == "map":
        return _PROBES[task.kind]
    # Of a single layer, the last four are the last: the row would repeat another.
    probes = [probe for probe in _PROBES[task.kind] if layers > 1 or probe != "linear_last4"]
    numbers = task.attentive if attentive is None else attentive
    return (*probes, *("attentive" if blocks == 1 else f"attentive{blocks}" for blocks in numbers))


def attentive_blocks(probe: str) -> int:
    """Blocks of an attentive probe by its name; 0 of other probes."""
    named = re.fullmatch(r"attentive(\d*)", probe)
    return int(named[1] or 1) if named else 0


@dataclass
class Bench:
    """Features of all splits; their principal axes are computed once. functions: measures of one's own, by name."""

    features: Splits[Features]
    low_shot_draws: int
    attention: ProbeTraining
    functions: Mapping[str, FunctionTask] = field(default_factory=dict)
    turned: dict[tuple[Layer, Column], Splits[Tensor]] = field(default_factory=dict)

    def examples(self, task: Task, layer: Layer, column: Column, turned: bool) -> Splits[Examples]:
        """Samples, of maps tokens, whose label is known; `turned` to principal axes for linear probes."""
        if layer == "last4" and column not in self.features.train.last4:
            layer = "last"  # a floor has no layers, so both rows show the same number
        features = self._turned(layer, column) if turned else self._plain(layer, column)
        return features.pair(_known, self.labels(task))

    def sequences(self, task: Task, column: Column) -> Splits[Sequences]:
        """Token sequences of the samples that keep them and whose label is known."""
        return self.features.map(lambda split: split.sequences[column]).pair(
            _known_sequences, self.sequence_labels(task)
        )

    def sequence_labels(self, task: Task) -> Splits[Tensor]:
        """Labels of the samples that keep their token sequences: [s]."""
        kept = self.features.map(lambda split: len(split.sequences["jepa"]))
        return _all_labelled(self.features.pair(lambda split, count: split.labels[task.label][:count], kept), task)

    def labels(self, task: Task) -> Splits[Tensor]:
        """Labels [n], of maps where tokens are kept [m, N]; raises UnmeasurableError where a split has none."""
        labels = self.features.map(
            lambda split: split.labels[task.label][: len(split.tokens["jepa"]) if task.kind == "map" else None]
        )
        return _all_labelled(labels, task)

    def columns(self, layer: Layer) -> list[Column]:
        """Those that have such features."""
        features = self.features.train
        return [column for column in features.columns if layer != "tokens" or column in features.tokens]

    def _plain(self, layer: Layer, column: Column) -> Splits[Tensor]:
        return self.features.map(lambda split: getattr(split, layer)[column].flatten(0, -2))

    def _turned(self, layer: Layer, column: Column) -> Splits[Tensor]:
        if (layer, column) not in self.turned:
            self.turned[layer, column] = on_principal_axes(self._plain(layer, column))
        return self.turned[layer, column]


def _all_labelled(labels: Splits[Tensor], task: Task) -> Splits[Tensor]:
    for split in ("train", "validation", "test"):
        if not getattr(labels, split).isfinite().any():
            raise UnmeasurableError(
                f"{task.label} is not measured: no sample of the {split} split is labelled with a number"
            )
    return labels


def _known(features: Tensor, labels: Tensor) -> Examples:
    known = labels.flatten().isfinite()
    return Examples(features[known], labels.flatten()[known])


def _known_sequences(tokens: Tensor, labels: Tensor) -> Sequences:
    known = labels.isfinite()
    return Sequences(tokens if known.all() else tokens[known], labels[known])  # without a copy where it can be


def measure(task: Task, probe: str, bench: Bench, advance: Callable[[], None]) -> dict[str, Any]:
    """One row of the table; raises UnmeasurableError. advance: called after each column."""
    if attentive_blocks(probe):
        return _attend(task, attentive_blocks(probe), bench, advance)
    if f"{task.label}/{probe}" in bench.functions:
        return _by_function(task, bench.functions[f"{task.label}/{probe}"], bench)
    labels = bench.labels(task)
    layer: Layer = "tokens" if task.kind == "map" else "last4" if probe == "linear_last4" else "last"
    outcomes: dict[Column, list[Outcome]] = {}
    taught = _samples(labels.train)
    for column in bench.columns(layer):
        examples = bench.examples(task, layer, column, turned=probe != "knn")
        if task.kind == "class":
            outcomes[column], taught = _classify(task, probe, examples, bench.low_shot_draws)
        else:
            outcomes[column] = [ridge(examples)]
        advance()
    scores = {column: [outcome.score for outcome in of_column] for column, of_column in outcomes.items()}
    means = {column: statistics.fmean(values) for column, values in scores.items()}
    row = _row(task, bench, means, labels, taught)
    if probe.startswith("low_shot"):
        row["spread"] = {
            column: statistics.stdev(values) if len(values) > 1 else 0.0 for column, values in scores.items()
        }
        row["draws"] = bench.low_shot_draws
    setting = ("k" if probe == "knn" else "C") if task.kind == "class" else "alpha"
    chosen = {column: [outcome.setting for outcome in of_column] for column, of_column in outcomes.items()}
    row["chosen"] = {column: {setting: values if len(values) > 1 else values[0]} for column, values in chosen.items()}
    return row


def _by_function(task: Task, measured: FunctionTask, bench: Bench) -> dict[str, Any]:
    """The row of a measure of one's own."""
    if task.kind == "map":
        raise UnmeasurableError(f"{measured.name} is not measured: {task.label} is a map, no number a sample")
    bench.labels(task)  # raises where there are none
    columns = {column: bench.examples(task, "last", column, turned=False) for column in bench.columns("last")}
    try:
        return function_row(measured, columns)
    except FunctionError as error:
        raise UnmeasurableError(str(error)) from error


def _row(
    task: Task, bench: Bench, scores: Mapping[Column, float], labels: Splits[Tensor], taught: int
) -> dict[str, Any]:
    """What every row holds: a number for every column that has one, null for the others."""
    kind = "accuracy" if task.kind == "class" else "rmse"
    row: dict[str, Any] = {"metric": kind, "higher_is_better": kind == "accuracy"}
    row |= {column: scores.get(column) for column in (*ENCODERS, "raw_input", *bench.features.train.columns)}
    row["chance"] = commonest(labels) if task.kind == "class" else constant(labels)
    row["train_samples"], row["test_samples"] = taught, _samples(labels.test)
    return row


def _attend(task: Task, blocks: int, bench: Bench, advance: Callable[[], None]) -> dict[str, Any]:
    """The row of an attentive probe: of the encoders, as floors have no tokens."""
    labels = bench.sequence_labels(task)
    scores: dict[Column, float] = {}
    chosen = {}
    for column in bench.features.train.sequences:
        examples, outputs = bench.sequences(task, column), 1
        if task.kind == "class":
            examples = examples.map(lambda split: Sequences(split.tokens, split.labels.long()))
            outputs = max(2, _classes(task, examples.map(lambda split: split.labels)))
        outcome = attentive_probe(examples, blocks, outputs, bench.attention)
        scores[column], chosen[column] = outcome.score, outcome.setting._asdict()
        advance()
    row = _row(task, bench, scores, labels, _samples(labels.train))
    row["chosen"] = chosen
    return row


def _classes(task: Task, labels: Splits[Tensor]) -> int:
    return max(len(task.classes), *(int(split.max()) + 1 for split in labels.parts()))


def _classify(task: Task, probe: str, examples: Splits[Examples], draws: int) -> tuple[list[Outcome], int]:
    """Outcomes of a probe, one a draw, and the number of examples that it was taught with."""
    examples = examples.map(lambda split: Examples(split.features, split.labels.long()))
    labels = examples.train.labels
    classes = _classes(task, examples.map(lambda split: split.labels))
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
