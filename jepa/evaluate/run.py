"""Evaluation of a run directory or checkpoint file -> results.json."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TimeElapsedColumn

from jepa.checkpoint import latest
from jepa.checkpoint.file import read_facts
from jepa.collapse import collapse_signs, rankme
from jepa.config import ConfigError, Tree, plain
from jepa.console import CONSOLE, shown, warn_once
from jepa.data import BadFiles, DataError
from jepa.data.summary import say_data
from jepa.disk import WriteError, write_text, writing
from jepa.evaluate.cross_modal.run import evaluate_streams, has_stream_rows, possible_stream_rows
from jepa.evaluate.cross_modal.words import stream_lines
from jepa.evaluate.feature_table import FeatureTable
from jepa.evaluate.features import ENCODERS, Extractor, Features, TokenBudget
from jepa.evaluate.forecast import InputBatches, build_forecaster, forecast_section
from jepa.evaluate.labels import UnmeasurableError, size_notes
from jepa.evaluate.probes.attentive import ProbeTraining
from jepa.evaluate.reading import SPLITS, evaluated_indices, evaluation_splits, raised_limit_note
from jepa.evaluate.ready import forecast_obstacle, no_tasks_note, used_without_tasks
from jepa.evaluate.request import Request
from jepa.evaluate.setup import EvaluationSetup, TaskProbe, is_part_of, open_setup
from jepa.evaluate.splits import Splits
from jepa.evaluate.summary import summary
from jepa.evaluate.table import print_table
from jepa.evaluate.tasks import attentive_blocks, measure
from jepa.modality import Samples, Split
from jepa.probe.averages import averaged_grid, pooling
from jepa.probe.missing import existing
from jepa.training.config import Config
from jepa.training.data_record import evaluated_data_change
from jepa.weights.families.encoder import Family
from jepa.weights.load import model_of


def evaluate_run(
    run: Path | str | Family, *, tasks: Sequence[str] = (), layers: Sequence[Tree | str] = ()
) -> dict[str, Any]:
    """Evaluate frozen features, print the table and write the results -> the content of results.json.

    run: run directory, or any other source of an encoder. tasks: names of tasks (`count`) or rows (`class/knn`); all if
    empty. layers: config overrides, as trees or as `section.key=value`. With overrides, or only some tasks, results go
    to `evaluations/` in the run directory and its results.json stays. Raises ConfigError, DataError and
    CheckpointError.
    """
    return evaluate_and_print(Request(source=run, tasks=tasks, layers=layers))


def evaluate_as(config: Config[Any, Any]) -> dict[str, Any]:
    """`evaluate_run` of `config.run_dir` by this config, also if the run was finished with other evaluate settings."""
    trained, now = read_facts(latest(config.run_dir)).config.get("evaluate", {}), plain(config.evaluate)
    same = all(trained.get(name) == value for name, value in now.items() if name not in ("enabled", "report"))
    request = Request(source=config.run_dir, base={} if same else {"evaluate": now}, output=config.run_dir)
    return evaluate_and_print(request)


def evaluate_and_print(request: Request, *, say: bool = False) -> dict[str, Any]:
    """As `evaluate_run`, with all options of `Request`. say: print what is read."""
    results, path = evaluate(request, say=say)
    _print(results)
    CONSOLE.print(f"results: {shown(path)}")
    return results


def evaluate(request: Request, *, say: bool = False) -> tuple[dict[str, Any], Path]:
    """Evaluate frozen features and write the results -> the content of results.json, and its path."""
    started = time.perf_counter()
    setup = open_setup(request)
    if say:
        say_data(setup.modality, replace(setup.config.evaluate, enabled=True))
    if setup.trained_run and (change := evaluated_data_change(setup.trained_run, setup.modality)):
        warn_once(f"the data is not that on which {setup.trained_run} was trained: {change}")
    names = [*(row.name for row in setup.available), *possible_stream_rows(setup)]
    for task in setup.requested:
        if not any(is_part_of(name, task) for name in names):
            tasks_of_data = ", ".join(names) or "none, as the data has no labels"
            raise ConfigError(f"no task '{task}'; tasks of this data: {tasks_of_data}")
    aside = setup.output.with_suffix(".partial")
    with writing(setup.output):  # now, as an evaluation may take hours
        setup.output.parent.mkdir(parents=True, exist_ok=True)
        aside.touch()
        aside.unlink()
    bar = ("evaluate", BarColumn(bar_width=None), "{task.description}", TimeElapsedColumn())
    with Progress(*bar, console=CONSOLE, transient=True, disable=not CONSOLE.is_terminal) as progress:
        progress.add_task("", total=None)
        measured = _evaluate(setup, progress)
    results = {**summary(setup), **measured, "evaluate_seconds": round(time.perf_counter() - started, 1)}
    try:
        write_text(setup.output, json.dumps(results, indent=1) + "\n", aside)
    except WriteError:  # the numbers may have taken hours
        _print(results)
        raise
    return results, setup.output


def _print(results: dict[str, Any]) -> None:
    print_table(results, stream_lines(results.get("streams", {})))


def _evaluate(setup: EvaluationSetup, progress: Progress) -> dict[str, Any]:
    """The sections `collapse`, `tasks`, `streams`, `forecast` and `notes` of results.json."""
    samples = evaluation_splits(setup.modality, setup.config.evaluate)
    count, limit = sum(map(len, samples.values())), setup.config.data.max_bad_fraction
    bad_files = BadFiles(setup.output.with_name("bad_files.txt"), count, limit, earlier=False)
    evaluation = _Evaluation(setup, samples, bad_files, progress, _unfinished(setup))
    rows = evaluation.measurable_rows()
    used = SPLITS if rows else used_without_tasks(samples)
    features = evaluation.features(used, rows)
    tasks = evaluation.tasks(features, rows) if rows else {}
    streams: dict[str, Any] = {}
    if has_stream_rows(setup):
        evaluation.show("streams")
        stream_rows, streams = evaluate_streams(setup, samples["test"], evaluation.notes, bad_files.add)
        tasks |= stream_rows
    forecast = {} if setup.requested else evaluation.forecast()
    if tasks:
        evaluation.notes.extend(size_notes({split: len(of_split) for split, of_split in features.items()}))
    return {
        "collapse": collapse_of(features[used[-1]], used[-1]) if used else {},
        "tasks": tasks,
        **({"streams": streams} if streams else {}),
        **({"forecast": forecast} if forecast else {}),
        "notes": evaluation.notes,
    }


@dataclass(frozen=True)
class _Evaluation:
    """An evaluation in progress. notes: sentences on what was not measured, and why."""

    setup: EvaluationSetup
    samples: Mapping[Split, Samples]
    bad_files: BadFiles
    progress: Progress
    notes: list[str] = field(default_factory=list)

    def show(self, stage: str) -> None:
        self.progress.update(self.progress.task_ids[0], description=stage)

    def advance(self) -> None:
        self.progress.advance(self.progress.task_ids[0])

    def measurable_rows(self) -> list[TaskProbe]:
        """The requested probes; none, with a note, if there are no labels or a split is empty."""
        setup, rows = self.setup, self.setup.rows
        note = no_tasks_note(rows, has_stream_rows(setup), self.samples)
        if note and (rows or not setup.requested):
            self.notes.append(note)
        if rows and (raised := raised_limit_note(setup.modality, setup.config.evaluate, self.samples["train"])):
            self.notes.append(raised)
        return [] if note else rows

    def features(self, used: Sequence[Split], rows: Sequence[TaskProbe]) -> dict[Split, Features]:
        """Features of the splits that are used, with as many tokens as the rows need."""
        config = self.setup.config

        def on_batch(bad: list[tuple[str, str]]) -> None:
            self.bad_files.add(bad)
            self.advance()

        tasks = list({row.task.label: row.task for row in rows}.values())
        extractor = Extractor(
            self.setup.modality, self.setup.encoders, tasks, config.evaluate.batch_size, config.compute, on_batch
        )
        indices = {
            split: evaluated_indices(len(self.samples[split]), self.setup.limits[split], split) for split in used
        }
        total = sum(math.ceil(len(of_split) / extractor.at_once) for of_split in indices.values())
        self.progress.update(self.progress.task_ids[0], total=total)
        features: dict[Split, Features] = {}
        for split in used:
            self.show(f"reading {split}")
            budget = _token_budget(self.setup, rows, split, last=split == used[-1])
            features[split] = extractor.extract(self.samples[split], indices[split], budget)
            if not features[split].last:
                raise DataError(
                    f"none of {len(indices[split])} {split} samples can be read; they are listed in "
                    f"{self.bad_files.path}"
                )
        if used:
            total += len(features[used[-1]].columns) * len(rows)
            self.progress.update(self.progress.task_ids[0], total=total)
        return features

    def tasks(self, features: Mapping[Split, Features], rows: Sequence[TaskProbe]) -> dict[str, Any]:
        config = self.setup.config
        evaluate = config.evaluate
        grid = tuple(self.setup.modality.grid)
        training = ProbeTraining(
            evaluate.attentive_steps,
            self.setup.device,
            config.compute.uses_bf16(self.setup.device.type),
            evaluate.attentive_norm,
            grid,
            averaged_grid(grid, evaluate.attentive_tokens),
        )
        splits = Splits(features["train"], features["validation"], features["test"])
        functions = {function.name: function for function in config.evaluate.functions}
        table = FeatureTable(splits, config.evaluate.low_shot_draws, training, functions)
        if evaluate.keep_probes:
            table.probes = self.setup.output.parent / "probes"
        measured = {}
        for row in rows:
            self.show(row.name)
            try:
                measured[row.name] = measure(row.task, row.probe, table, self.advance)
            except UnmeasurableError as error:
                if str(error) not in self.notes:
                    self.notes.append(str(error))
        return measured

    def forecast(self) -> dict[str, Any]:
        """The `forecast` section; empty, perhaps with a note, if forecasts are not measured."""
        setup, config, modality = self.setup, self.setup.config, self.setup.modality
        if modality.forecast_axis is None or not config.evaluate.forecast_samples:
            return {}
        obstacle = forecast_obstacle(config, modality, self.samples, setup.on_trained_grid)
        if setup.checkpoint is None or not setup.opened.has_predictor:
            obstacle = f"Forecasts are not measured: {setup.opened.source} has no predictor."
        if not obstacle and (strange := setup.opened.strange_targets):
            named = f"{' and '.join(strange)}, which {setup.opened.source} names"
            obstacle = f"Forecasts are not measured: they would call {named}; if you trust its authors, pass --trust."
        if obstacle or setup.checkpoint is None:
            self.notes.append(obstacle)
            return {}
        self.show("forecast")
        networks = model_of(setup.checkpoint, config, modality).to(setup.device)
        forecaster = build_forecaster(networks, modality, config)
        if not forecaster.rolls:
            reason = "predictions have not the form of a context, which is the last layer, or several levels joined"
            self.notes.append(f"Forecasts are not rolled out: {reason}.")
        batches = InputBatches(modality, config, setup.device, self.bad_files.add)
        return forecast_section(forecaster, self.samples["train"], self.samples["test"], batches)


def _token_budget(setup: EvaluationSetup, rows: Sequence[TaskProbe], split: Split, last: bool) -> TokenBudget:
    """The tokens of a split that the rows need. The last split keeps some for the signs of collapse."""
    evaluate, modality = setup.config.evaluate, setup.modality
    maps = any(row.task.kind == "map" for row in rows)
    attentive = any(attentive_blocks(row.probe) for row in rows)
    return TokenBudget(
        tokens=max(2, evaluate.map_tokens // math.prod(modality.grid)) if maps or last else 0,
        sequences=evaluate.attentive_samples if attentive else 0,
        pooling=pooling(modality.grid, evaluate.attentive_tokens),
        every_view=split != "train",
        normed=evaluate.attentive_norm,
    )


def _unfinished(setup: EvaluationSetup) -> list[str]:
    """A note on networks whose training went on, or will go on; empty for others."""
    steps = setup.opened.trained[0].steps
    if setup.checkpoint is None or not 0 < setup.checkpoint.step < steps:
        return []
    return [f"{setup.opened.source} holds the networks of step {setup.checkpoint.step:,} of {steps:,}."]


def collapse_of(features: Features, split: Split) -> dict[str, Any]:
    """Signs of collapse: RankMe of the centred mean-pooled features of all samples, the others of the tokens kept.

    If samples lack tokens, the others are of pooled features too, as in training.
    """
    if len(features) < 2:
        return {}
    tokens = features.tokens["jepa"]
    if existing(tokens) is not None:
        tokens = features.last["jepa"][: len(tokens)].unsqueeze(1)
    ranks = {column: rankme(features.last[column] - features.last[column].mean(dim=0)) for column in ENCODERS}
    return {
        **asdict(collapse_signs(tokens)),
        "rankme": ranks["jepa"],
        "rankme_random_init": ranks["random_init"],
        "dimensions": features.last["jepa"].shape[1],
        "samples": len(features),
        "split": split,
    }
