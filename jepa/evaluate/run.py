"""Evaluation of a run directory or checkpoint file: what stands in results.json."""

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from jepa.collapse import collapse_signs, rankme
from jepa.config import Tree, plain
from jepa.console import CONSOLE
from jepa.data import BadFiles
from jepa.evaluate.cross_modal.run import is_asked, measure_matched
from jepa.evaluate.features import Extractor, Features, TokenBudget
from jepa.evaluate.forecast import Source, can_forecast, forecast, forecaster
from jepa.evaluate.probes.attentive import ProbeTraining, pooling
from jepa.evaluate.reading import SPLITS, evaluated_indices, evaluation_splits
from jepa.evaluate.setup import Row, Subject, open_subject
from jepa.evaluate.splits import Splits
from jepa.evaluate.table import print_table
from jepa.evaluate.tasks import Bench, UnmeasurableError, attentive_blocks, measure
from jepa.modality import Samples, Split
from jepa.weights.load import model_of


def evaluate_run(run: Path | str, *, tasks: Sequence[str] = (), layers: Sequence[Tree] = ()) -> dict[str, Any]:
    """Measure a trained encoder on frozen features, show the table, and write it -> the content of results.json.

    run: run directory, or checkpoint file. tasks: names (`count`) or rows (`class/knn`), all where empty.
    layers: config over that of the run; with these, or with some tasks only, results go to `evaluations/` in the run
    directory and the run's own results.json stays. Raises ConfigError, DataError and CheckpointError.
    """
    started = time.perf_counter()
    subject = open_subject(Path(run), tasks, list(layers))
    subject.output.parent.mkdir(parents=True, exist_ok=True)
    measured = _measured(subject, forecasting=not tasks)
    results = {**_summary(subject), **measured, "evaluate_seconds": round(time.perf_counter() - started, 1)}
    aside = subject.output.with_suffix(".partial")
    aside.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(aside, subject.output)  # noqa: PTH105 - atomic
    print_table(results)
    CONSOLE.print(f"results: {subject.output}", highlight=False)
    return results


def _summary(subject: Subject) -> dict[str, Any]:
    checkpoint, config = subject.checkpoint, subject.config
    samples = checkpoint.step * config.optim.batch_size
    return {
        "modality": config.modality,
        "steps": checkpoint.step,
        "samples": samples,
        "train_seconds": round(checkpoint.seconds, 1),
        "samples_per_second": round(samples / checkpoint.seconds, 1) if checkpoint.seconds else 0.0,
        "target": config.target,
        "encoder": config.evaluate.encoder,
        "protocol": plain(config.evaluate),
    }


def _measured(subject: Subject, forecasting: bool) -> dict[str, Any]:
    """Signs of collapse, tasks, prediction of what is to come, and notes on what was not measured."""
    samples = evaluation_splits(subject.modality, subject.config.evaluate)
    bad_files = BadFiles(
        subject.output.with_name("bad_files.txt"),
        sum(map(len, samples.values())),
        subject.config.data.max_bad_fraction,
    )
    rows, notes, matching = list(subject.rows), [], is_asked(subject)
    if not rows:
        if not subject.asked:
            notes.append(f"The data has no labels, so no {'probe is taught' if matching else 'task is measured'}.")
    elif empty := [split for split in SPLITS if len(samples[split]) == 0]:
        notes.append(f"The {' and the '.join(empty)} split has no samples, so no task is measured.")
        rows = []
    wanted = SPLITS if rows else tuple(split for split in reversed(SPLITS) if len(samples[split]) > 1)[:1]
    with _bar() as progress:
        features = _features(subject, samples, wanted, rows, progress, bad_files)
        measured = _rows(subject, features, rows, notes, progress) if rows else {}
        streams: dict[str, Any] = {}
        if matching:
            progress.update(progress.task_ids[0], description="matches")
            more, streams = measure_matched(subject, samples["test"], notes, bad_files.add)
            measured |= more
        forecasts = _forecast(subject, samples, notes, progress, bad_files) if forecasting else {}
    return {
        "collapse": _collapse(features[wanted[-1]], wanted[-1]) if wanted else {},
        "tasks": measured,
        **({"streams": streams} if streams else {}),
        **({"forecast": forecasts} if forecasts else {}),
        "notes": notes,
    }


def _forecast(
    subject: Subject, samples: Mapping[Split, Samples], notes: list[str], progress: Progress, bad_files: BadFiles
) -> dict[str, Any]:
    """How well the predictor tells what comes after a cut; empty, perhaps with a note, where that is not measured."""
    config, modality = subject.config, subject.modality
    if modality.forecast_axis is None or not config.evaluate.forecast_samples:
        return {}
    if not can_forecast(modality, config):
        notes.append("What is to come is not predicted: the run learned to predict values, or there is a single slot.")
        return {}
    if not subject.on_trained_grid or not all(len(samples[split]) for split in ("train", "test")):
        notes.append("What is to come is not predicted: that needs the token grid of the training, and test samples.")
        return {}
    progress.update(progress.task_ids[0], description="forecast")
    caster = forecaster(model_of(subject.checkpoint, config, modality).to(subject.device), modality, config)
    if not caster.rolls:
        notes.append("Predictions are not rolled on: they mix layers, and context is the last layer alone.")
    source = Source(modality, config, subject.device, bad_files.add)
    return forecast(caster, samples["train"], samples["test"], source)


def _features(
    subject: Subject,
    samples: Mapping[Split, Samples],
    wanted: Sequence[Split],
    rows: Sequence[Row],
    progress: Progress,
    bad_files: BadFiles,
) -> dict[Split, Features]:
    config, modality = subject.config, subject.modality
    bar = progress.task_ids[0]

    def on_batch(bad: list[tuple[str, str]]) -> None:
        bad_files.add(bad)
        progress.advance(bar)

    tasks = list({task.label: task for task, _ in rows}.values())
    extractor = Extractor(modality, subject.encoders, tasks, config.evaluate.batch_size, config.compute, on_batch)
    limits = {split: getattr(config.evaluate, f"{split}_samples") for split in wanted}
    batches = [math.ceil(min(limits[split], len(samples[split])) / extractor.samples_at_once) for split in wanted]
    progress.update(bar, total=sum(batches))
    features: dict[Split, Features] = {}
    for split in wanted:
        progress.update(bar, description=f"reading {split}")
        kept = _kept(subject, rows, split, last=split == wanted[-1])
        features[split] = extractor.extract(
            samples[split], evaluated_indices(len(samples[split]), limits[split], split), kept
        )
    progress.update(bar, total=sum(batches) + len(features[wanted[-1]].columns) * len(rows) if wanted else 0)
    return features


def _kept(subject: Subject, rows: Sequence[Row], split: Split, last: bool) -> TokenBudget:
    """What tokens the rows need of a split; the last one shows signs of collapse."""
    evaluate, modality = subject.config.evaluate, subject.modality
    maps = any(task.kind == "map" for task, _ in rows)
    attentive = any(attentive_blocks(probe) for _, probe in rows)
    return TokenBudget(
        tokens=max(2, evaluate.map_tokens // math.prod(modality.grid)) if maps or last else 0,
        sequences=evaluate.attentive_samples if attentive else 0,
        pooling=pooling(modality.grid, evaluate.attentive_tokens),
        every_view=split != "train",
    )


def _rows(
    subject: Subject, features: Mapping[Split, Features], rows: Sequence[Row], notes: list[str], progress: Progress
) -> dict[str, Any]:
    config = subject.config
    attention = ProbeTraining(config.evaluate.attentive_steps, subject.device, config.compute.precision)
    splits = Splits(features["train"], features["validation"], features["test"])
    functions = {task.name: task for task in config.evaluate.functions}
    bench = Bench(splits, config.evaluate.low_shot_draws, attention, functions)
    bar = progress.task_ids[0]
    measured = {}
    for task, probe in rows:
        progress.update(bar, description=f"{task.label}/{probe}")
        try:
            measured[f"{task.label}/{probe}"] = measure(task, probe, bench, lambda: progress.advance(bar))
        except UnmeasurableError as error:
            if str(error) not in notes:
                notes.append(str(error))
    return measured


def _collapse(features: Features, split: Split) -> dict[str, Any]:
    """Signs of collapse: rankme of the centred mean-pooled features of all samples, the others of the tokens kept."""
    if len(features) < 2:
        return {}
    signs = asdict(collapse_signs(features.tokens["jepa"]))
    pooled = {column: features.last[column] for column in ("jepa", "random_init")}
    ranks = {column: rankme(values - values.mean(dim=0)) for column, values in pooled.items()}
    return {
        **signs,
        "rankme": ranks["jepa"],
        "rankme_random_init": ranks["random_init"],
        "samples": len(features),
        "split": split,
    }


def _bar() -> Progress:
    progress = Progress(
        TextColumn("[bold]evaluate"),
        BarColumn(bar_width=None),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=CONSOLE,
        transient=True,
        disable=not CONSOLE.is_terminal,
    )
    progress.add_task("", total=None)
    return progress
