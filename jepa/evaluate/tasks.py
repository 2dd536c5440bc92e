"""From features to rows of the results: the encoders, the baselines and chance under one protocol."""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from jepa.evaluate.feature_table import FeatureTable, Layer
from jepa.evaluate.features import ENCODERS, Column
from jepa.evaluate.labels import (
    FEW_LABELS,
    UnmeasurableError,
    caveats_of,
    constant_error,
    count_labelled,
    different_draws,
    labels_per_class,
    majority_accuracy,
)
from jepa.evaluate.probes.attentive import attentive_probe
from jepa.evaluate.probes.custom import FunctionError, function_row
from jepa.evaluate.probes.linear import Outcome, knn, linear_probe, low_shot, ridge
from jepa.evaluate.splits import Examples, Splits
from jepa.evaluate.table import Row
from jepa.modality import Task
from jepa.probe.protocol import FunctionTask

POOLED = "_pooled"  # ends the name of a probe on the encoder's own pooled vector
_PROBES = {
    "class": ("linear", "linear_last4", "knn", *FEW_LABELS),
    "count": ("ridge",),
    "regression": ("ridge",),
    "map": ("ridge",),
}


def probe_names(task: Task, attentive: Sequence[int] | None, layers: int, pooled: bool = False) -> Sequence[str]:
    """Probes of a task on an encoder with `layers` layers.

    attentive: numbers of blocks of the attentive probes, None for the task's own choice. pooled: the encoder has a
    pooled vector of its own.
    """
    if task.kind == "map":
        return _PROBES[task.kind]
    # With a single layer, the last four are that layer, and the row would repeat another.
    probes = [probe for probe in _PROBES[task.kind] if layers > 1 or probe != "linear_last4"]
    if pooled:
        probes += [f"{probe}{POOLED}" for probe in ("linear", "knn", "ridge") if probe in probes]
    numbers = task.attentive if attentive is None else attentive
    return (*probes, *("attentive" if blocks == 1 else f"attentive{blocks}" for blocks in dict.fromkeys(numbers)))


def attentive_blocks(probe: str) -> int:
    """Number of blocks in the name of an attentive probe; 0 for other probes."""
    named = re.fullmatch(r"attentive(\d*)", probe)
    return int(named[1] or 1) if named else 0


def measure(task: Task, probe: str, table: FeatureTable, advance: Callable[[], None]) -> Row:
    """One row of the results; raises UnmeasurableError. advance: called after each column."""
    if attentive_blocks(probe):
        return _attentive_row(task, attentive_blocks(probe), table, advance)
    if f"{task.label}/{probe}" in table.functions:
        return _custom_row(task, table.functions[f"{task.label}/{probe}"], table)
    labels = table.labels(task)
    layer, probe_kind = _layer(task, probe), probe.removesuffix(POOLED)
    outcomes: dict[Column, list[Outcome]] = {}
    train_samples = count_labelled(labels.train)
    for column in table.columns(layer):
        examples = table.examples(task, layer, column, projected=probe_kind != "knn")
        if task.kind == "class":
            outcomes[column], train_samples = _classify(task, probe_kind, examples, table.low_shot_draws)
        else:
            outcomes[column] = [ridge(examples)]
        advance()
    scores = {column: [outcome.score for outcome in of_column] for column, of_column in outcomes.items()}
    means = {column: statistics.fmean(values) for column, values in scores.items()}
    row = _row(task, probe, table, means, labels, train_samples)
    if probe in FEW_LABELS:
        row |= _few_labels(labels.train, FEW_LABELS[probe], train_samples) | {"draws": len(scores["jepa"])}
        if row["draws"] > 1:
            row["spread"] = {column: statistics.stdev(values) for column, values in scores.items()}
    setting = ("k" if probe_kind == "knn" else "C") if task.kind == "class" else "alpha"
    chosen = {column: [outcome.setting for outcome in of_column] for column, of_column in outcomes.items()}
    row["chosen"] = {column: {setting: values if len(values) > 1 else values[0]} for column, values in chosen.items()}
    return row


def _layer(task: Task, probe: str) -> Layer:
    """The features that a probe is trained on."""
    if probe.endswith(POOLED):
        return "pooled"
    return "tokens" if task.kind == "map" else "last4" if probe == "linear_last4" else "last"


def _few_labels(labels: Tensor, each: int | float, used: int) -> Row:
    """How many of the training labels [n] trained a probe: per class, or their share."""
    known = labels[labels.isfinite()].long()
    return (
        {"labels_per_class": labels_per_class(known, each)}
        if isinstance(each, int)
        else {"label_share": used / len(known)}
    )


def _custom_row(task: Task, function: FunctionTask, table: FeatureTable) -> Row:
    if task.kind == "map":
        raise UnmeasurableError(f"{function.name} is not measured: {task.label} is a map, not a number per sample")
    table.labels(task)  # raises if there are none
    stored = {column: table.examples(task, "last", column, projected=False) for column in table.columns("last")}
    # Copies: a function may train on its examples or change them, and stored features are inference tensors.
    columns = {
        column: splits.map(lambda one: Examples(_copy(one.features), _copy(one.labels.float())))
        for column, splits in stored.items()
    }
    try:
        return function_row(function, columns)
    except FunctionError as error:
        raise UnmeasurableError(str(error)) from error


def _copy(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", copy=True)


def _row(
    task: Task,
    probe: str,
    table: FeatureTable,
    scores: Mapping[Column, float],
    labels: Splits[Tensor],
    train_samples: int,
) -> Row:
    """The fields of every row: the score of each column, null if it has none, chance, and caveats if there are any."""
    kind = "accuracy" if task.kind == "class" else "rmse"
    row: Row = {"metric": kind, "higher_is_better": kind == "accuracy"}
    row |= {column: scores.get(column) for column in (*ENCODERS, "raw_input", *table.features.train.columns)}
    row["chance"] = majority_accuracy(labels) if task.kind == "class" else constant_error(labels)
    row["train_samples"] = train_samples
    row["validation_samples"], row["test_samples"] = count_labelled(labels.validation), count_labelled(labels.test)
    row["test_labels"] = _digest(labels.test.unique(return_inverse=True)[1] if kind == "accuracy" else labels.test)
    caveats = caveats_of(task, probe, labels)
    return row | ({"caveats": caveats} if caveats else {})


def _digest(labels: Tensor) -> str:
    """A text that labels, or the ranks of classes, share with no others."""
    return blake2b(labels.double().cpu().numpy().tobytes(), digest_size=4).hexdigest()


def _attentive_row(task: Task, blocks: int, table: FeatureTable, advance: Callable[[], None]) -> Row:
    """The row of an attentive probe. Only encoders have a score, as baselines have no tokens."""
    labels = table.sequence_labels(task)
    scores, chosen = {}, {}
    for column in table.features.train.sequences:
        examples, names = table.sequences(task, column), tuple[str, ...]()
        if task.kind == "class":
            examples, names = with_classes(task, examples)
        outputs = max(2, len(names)) if task.kind == "class" else 1
        outcome = attentive_probe(examples, blocks, outputs, table.training)
        scores[column], chosen[column] = outcome.score, outcome.setting._asdict()
        if column == "jepa" and table.probes is not None:
            saved = outcome.saved(names, table.training)
            saved.save(table.probes / f"{task.label}_attentive{blocks}.pt")
        advance()
    row = _row(task, f"attentive{blocks}", table, scores, labels, count_labelled(labels.train))
    row["chosen"] = chosen
    return row


def with_classes(task: Task, examples: Splits[Examples]) -> tuple[Splits[Examples], tuple[str, ...]]:
    """Examples labelled with the numbers of their classes, and the names of these.

    Labels that the task does not name are numbered in order, so that 7 and 30,000 are two classes. Those that occur
    only outside the training split are -1, which no probe predicts.
    """
    examples = examples.map(lambda split: Examples(split.features, split.labels.long()))
    if all(int(split.labels.max()) < len(task.classes) for split in examples.parts()):
        return examples, tuple(task.classes)
    values = examples.train.labels.unique()

    def numbered(split: Examples) -> Examples:
        numbers = torch.searchsorted(values, split.labels).clamp_max(len(values) - 1)
        return Examples(split.features, torch.where(values[numbers] == split.labels, numbers, -1))

    return examples.map(numbered), tuple(map(str, values.tolist()))


def _classify(task: Task, probe: str, examples: Splits[Examples], draws: int) -> tuple[list[Outcome], int]:
    """Outcomes of a probe, one per draw, and the number of its training examples."""
    examples, names = with_classes(task, examples)
    labels, classes = examples.train.labels, len(names)
    if probe == "knn":
        return [knn(examples, classes)], len(labels)
    if probe in ("linear", "linear_last4"):
        return [linear_probe(examples, classes)], len(labels)
    rows = different_draws(labels.cpu(), FEW_LABELS[probe], draws)
    return low_shot(examples, classes, rows), len(rows[0])
