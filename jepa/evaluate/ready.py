"""Checks before training that the evaluation can run after it: splits, samples, labels, custom metrics, report."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from jepa.config import ConfigError
from jepa.config.imports import describe_error
from jepa.console import CONSOLE, shown
from jepa.data import DataError
from jepa.evaluate.cross_modal.rows import row_names
from jepa.evaluate.forecast import can_forecast
from jepa.evaluate.labels import UnmeasurableError, caveats_of, check_labels
from jepa.evaluate.online.samples import announce_probe
from jepa.evaluate.reading import (
    SPLITS,
    ViewDataset,
    evaluated_indices,
    evaluation_splits,
    known_labels,
    raised_limit_note,
    sample_limits,
)
from jepa.evaluate.setup import TaskProbe, possible_rows
from jepa.evaluate.splits import Splits
from jepa.evaluate.table import Row, caveat_lines
from jepa.matching import MatchedModality
from jepa.modality import BadSampleError, Modality, Samples, Split, Task
from jepa.training.config import Config

_TRIED, _MOST_TRIED = 8, 100  # samples of a split that are read; more until one can be read


def announce_evaluation(config: Config[Any, Any], modality: Modality[Any], asks_for_probe: bool = False) -> None:
    """Check the probe during a run and the evaluation at its end, and print what they will not measure.

    Opens the splits and reads a few samples of each. Raises ConfigError and DataError if the evaluation, or the report,
    would fail, or if there can be no probe and the user asks for one.
    """
    announce_probe(config, modality, asks_for_probe)
    if config.evaluate.report and find_spec("matplotlib") is None:
        raise ConfigError("evaluate.report: needs matplotlib, which is not installed; install it, or set it to false")
    for note in evaluation_notes(config, modality) if config.evaluate.enabled else ():
        CONSOLE.print(shown(f"evaluation: {note}"))


def evaluation_notes(config: Config[Any, Any], modality: Modality[Any]) -> list[str]:
    """What an evaluation will not measure, and what will limit its scores; raises ConfigError and DataError."""
    samples = evaluation_splits(modality, config.evaluate)
    try:
        rows = possible_rows(modality, config)
        has_streams = isinstance(modality, MatchedModality) and bool(row_names(modality, config))
    except (OSError, ValueError) as error:
        raise DataError(f"data: {error}") from error
    notes = [no_tasks_note(rows, has_streams, samples), raised_limit_note(modality, config.evaluate, samples["train"])]
    tasks = list({row.task.label: row.task for row in rows}.values())
    limits = sample_limits(modality, config.evaluate)
    indices = {split: evaluated_indices(len(samples[split]), limits[split], split) for split in SPLITS}
    used = SPLITS if tasks else used_without_tasks(samples)
    tried = {split: _try_samples(modality, samples[split], split, tasks, indices[split]) for split in used}
    _check_limit(tried, samples, config.data.max_bad_fraction)
    notes += [of_split.note(split) for split, of_split in tried.items()]
    for task in tasks if all(indices.values()) else ():
        of_task = [row.probe for row in rows if row.task == task]
        known = [known_labels(samples[split], indices[split], task) for split in SPLITS]
        if task in modality.tasks and all(labels is not None for labels in known):
            notes += _label_notes(task, of_task, Splits(*known))
        else:
            notes += _missing_label(task, {split: of_split.labels for split, of_split in tried.items()})
    if modality.forecast_axis is not None and config.evaluate.forecast_samples:
        notes.append(forecast_obstacle(config, modality, samples))
    gallery, scored = config.evaluate.gallery or 0, len(indices["test"])
    if has_streams and scored < gallery:
        notes.append(f"Galleries of retrieval hold {scored:,} samples, as only these are scored, not {gallery:,}.")
    return list(filter(None, notes))


def used_without_tasks(samples: Mapping[Split, Samples]) -> tuple[Split, ...]:
    """The split that shows signs of collapse if no probe is trained; none if all are too small."""
    return tuple(split for split in reversed(SPLITS) if len(samples[split]) > 1)[:1]


def forecast_obstacle(
    config: Config[Any, Any], modality: Modality[Any], samples: Mapping[Split, Samples], on_trained_grid: bool = True
) -> str:
    """Why forecasts along the modality's axis are not measured; empty if they are."""
    if not can_forecast(modality, config):
        return "Forecasts are not measured: the run did not predict representations, or its grid has a single slot."
    if not on_trained_grid or not all(len(samples[split]) for split in ("train", "test")):
        return "Forecasts are not measured: they need the token grid of training, and test samples."
    return ""


def _missing_label(task: Task, labels: Mapping[Split, Sequence[str]]) -> list[str]:
    """A note if samples lack the label of a task; labels: names of the labels of one sample of each split."""
    lacking = [split for split in SPLITS if task.label not in labels[split]]
    if not lacking:
        return []
    known = ", ".join(dict.fromkeys(name for split in lacking for name in labels[split])) or "none"
    first = f"first {', '.join(lacking)} sample{'s have' if len(lacking) > 1 else ' has'}"
    return [f"The {first} no label '{task.label}', so it may not be measured; their labels: {known}."]


def no_tasks_note(rows: Sequence[TaskProbe], has_streams: bool, samples: Mapping[Split, Samples]) -> str:
    """Why no task is measured; empty if tasks are."""
    if not rows:
        return f"The data has no labels, so no {'probe is trained' if has_streams else 'task is measured'}."
    empty = [split for split in SPLITS if not len(samples[split])]
    return f"The {' and the '.join(empty)} split has no samples, so no task is measured." if empty else ""


class _Tried(NamedTuple):
    """What reading a few samples of a split showed: names of the labels of one, and those that cannot be read."""

    labels: Sequence[str]
    bad: Sequence[BadSampleError]
    number: int  # of samples tried

    def note(self, split: Split) -> str:
        """A sentence on the samples that cannot be read; empty if all can."""
        if not self.bad:
            return ""
        return f"{len(self.bad)} of {self.number} {split} samples cannot be read, such as {_described(self.bad[0])}."


def _try_samples(
    modality: Modality[Any], samples: Samples, split: Split, tasks: Sequence[Task], indices: Sequence[int]
) -> _Tried:
    """Read the first samples; raises DataError if one cannot be evaluated, or none of a hundred can be read."""
    views = ViewDataset(modality, samples, indices, tasks)
    bad: list[BadSampleError] = []
    labels: Sequence[str] | None = None
    count = 0
    for count, index in enumerate(indices[:_MOST_TRIED], start=1):
        try:
            item = views[count - 1]
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"data: a {split} sample cannot be evaluated: {describe_error(error)}") from error
        if isinstance(item, BadSampleError):
            bad.append(item)
        elif labels is None:
            labels = list(map(str, samples[index].labels))
        if count >= _TRIED and labels is not None:
            break
    if bad and labels is None:
        raise DataError(f"data: none of {count} {split} samples can be read, such as {_described(bad[0])}")
    return _Tried(labels or (), bad, count)


def _check_limit(tried: Mapping[Split, _Tried], samples: Mapping[Split, Samples], limit: float) -> None:
    """Raise DataError if more samples cannot be read than the evaluation allows."""
    total, bad = sum(map(len, samples.values())), {one.source for of_split in tried.values() for one in of_split.bad}
    if len(bad) > limit * total:
        notes = " ".join(filter(None, (of_split.note(split) for split, of_split in tried.items())))
        raise DataError(f"data: {notes} That is more than data.max_bad_fraction={limit} of {total:,} samples allows")


def _described(bad: BadSampleError) -> str:
    return f"{bad.source}: {bad.reason}"


def _label_notes(task: Task, probes: Sequence[str], labels: Splits[Any]) -> list[str]:
    """What the labels [n] of each split do not allow."""
    try:
        check_labels(task, labels)
    except UnmeasurableError as error:
        return [str(error)]
    rows: dict[str, Row] = {f"{task.label}/{probe}": {"caveats": caveats_of(task, probe, labels)} for probe in probes}
    return caveat_lines(rows)
