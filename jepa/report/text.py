"""Text and tables of a report as HTML. Everything that a user named is escaped here."""

import platform
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from jepa.checkpoint import Checkpoint
from jepa.config import plain, to_yaml
from jepa.evaluate.table import Row, best_columns, columns, is_close
from jepa.report.charts import percent, task_title
from jepa.report.run import Run
from jepa.targets import VIEWS, VISIBLE
from jepa.training.config import Config


def heading(run: Run) -> str:
    """Title, and a paragraph on the run and its main result."""
    words = _of_run(run, run.checkpoint) if run.is_run and run.checkpoint else _of_source(run)
    return f'<h1>{escape(run.title)}</h1>\n<p class="lead">{escape(words)} {_verdict(run.results.get("tasks", {}))}</p>'


def _of_source(run: Run) -> str:
    """An encoder that was not trained in this folder."""
    return (
        f"The encoder of {run.opened.source}, with {run.parameters / 1e6:.3g} million parameters, evaluated on "
        f"{run.config.modality} data{_data(run)}. Each input has {_tokens(run)}."
    )


def _data(run: Run) -> str:
    data = plain(run.config.data)
    source = " from ".join(str(data[key]) for key in ("source", "root") if data.get(key))
    return f" ({source})" if source else ""


def _of_run(run: Run, checkpoint: Checkpoint) -> str:
    config = run.config
    return (
        f"{_networks(run)}, trained on {config.modality} data{_data(run)} for "
        f"{checkpoint.step:,} steps of {config.optim.batch_size:,} samples, "
        f"{checkpoint.step * config.optim.batch_size:,} in all, in {_duration(checkpoint.seconds)}. Each input has "
        f"{_tokens(run)}. {_learned(config)}"
    )


def _networks(run: Run) -> str:
    vit, size = getattr(run.config.model, "vit", None), getattr(run.config.model, "size", None)
    name = [size] if isinstance(size, str) else []
    if vit is None:
        about = f" ({name[0]})" if name else ""
        return f"An encoder of {run.parameters / 1e6:.3g} million parameters{about}"
    shape = ", ".join([*name, f"width {vit.width}", f"depth {vit.depth}", f"{vit.heads} heads"])
    return f"A transformer of {run.parameters / 1e6:.3g} million parameters ({shape})"


def _tokens(run: Run) -> str:
    grid = " x ".join(map(str, run.modality.grid))
    if not run.modality.streams:
        return f"{grid} tokens"
    first, *others = run.modality.streams
    parts = [f"{len(first.tokens)} tokens of {first.name} ({grid} of them on a grid)"]
    return " and ".join([*parts, *(f"{len(other.tokens)} of {other.name}" for other in others)])


def _learned(config: Config[Any, Any]) -> str:
    """What each stage trains, as a sentence."""
    parts = [(stage.first_step, _objective(tuple(stage.weights))) for stage in config.timeline]
    later = [f"from step {first:,} on {words}" for first, words in parts[1:]]
    return "; ".join([f"It learned {parts[0][1]}", *later]) + "."


def _objective(kinds: Sequence[str]) -> str:
    """The targets of a stage: values and representations of hidden tokens, the agreement of views, or both."""
    named = {"pixels": "the values", "latent": "the representation"}
    hidden = [named.get(kind, f"the output of {kind}") for kind in kinds if kind not in (VIEWS, VISIBLE)]
    parts = [f"to predict {' and '.join(hidden)} of hidden tokens from visible ones"] if hidden else []
    if VISIBLE in kinds:
        parts.append("to predict the representation of visible tokens")
    if VIEWS in kinds:
        parts.append("to give several views of a sample the same representation")
    return " and ".join(parts)


def notices(run: Run) -> str:
    """Boxes with what a reader must know first: collapse, an unfinished run, missing or outdated results, notes."""
    found, tasks = [], run.results.get("tasks", {})
    if warning := run.collapse_warning():
        found.append(("bad", "The representation looks bad", f"{warning[0].upper()}{warning[1:]}."))
    step = run.checkpoint.step if run.is_run and run.checkpoint else None
    if step is not None and step < run.config.steps:
        progress = f"This is step {step:,} of {run.config.steps:,}"
        found.append(("note", "The run is not finished", f"{progress}; the same command resumes it."))
    if not run.results:
        command = shlex.join(["jepa", "evaluate", str(run.run_dir)])
        found.append(("bad", "Not evaluated", f"This command measures how good the encoder is: {command}"))
    elif step is not None and run.results.get("steps", step) != step:
        steps = f"step {run.results['steps']:,}, the checkpoint is of step {step:,}"
        found.append(("note", "The evaluation is out of date", f"It evaluates {steps}."))
    elif not tasks:
        found.append(("bad", "No task", "Only the pictures show how good the encoder is; there is no score."))
    elif rival := _rival(tasks):
        found.append(("bad", "Not better than a baseline", rival))
    found += [("note", "About the evaluation", note) for note in run.results.get("notes", [])]
    return "\n".join(
        f'<div class="box {kind}"><strong>{escape(title)}</strong>{escape(text)}</div>' for kind, title, text in found
    )


def task_table(tasks: Mapping[str, Row]) -> str:
    """Tasks beside their baselines, the best in bold."""
    headings = columns(tasks)
    baselines = [escape(title) for name, title in headings.items() if name not in ("jepa", "random_init", "chance")]
    words = (
        f"Probes on frozen features, under one protocol for every column: the trained encoder, the encoder before "
        f"training, baselines of the modality ({', '.join(baselines)}), and chance, the best answer that ignores the "
        "input. The best score of a row is bold; ↑ means higher is better, ↓ lower is better; train and test are "
        "numbers of labelled samples."
    )
    if any("spread" in row for row in tasks.values()):
        words += " ± gives the standard deviation over draws of the labelled samples, or over galleries."
    if any(row["metric"] == "recall" for row in tasks.values()):
        words += (
            " Retrieval trains no probe: its score is the share of queries with a match among the top k of the "
            "gallery, with ties in random order."
        )
    return f"<h2>How good is it?</h2>\n<p>{words}</p>\n{rows_table(tasks, headings)}"


def rows_table(tasks: Mapping[str, Row], headings: Mapping[str, str]) -> str:
    """A row for each task, a column for each heading, and the numbers of samples."""
    head = "".join(f"<th>{escape(title)}</th>" for title in ("task", *headings.values(), "train", "test"))
    rows = "\n".join(_task_row(name, row, list(headings)) for name, row in tasks.items())
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'


def forecast_words(section: Mapping[str, Any]) -> str:
    """Explanation and summary of the forecasts, as text."""
    errors, horizons = section["errors"], section["horizons"]
    baselines = [values for name, values in errors.items() if name not in ("direct", "rolled")]
    won = sum(errors["direct"][index] < min(values[index] for values in baselines) for index in range(len(horizons)))
    past, total = section["seen_slots"], section["seen_slots"] + len(horizons)
    rolled = ", or slot by slot, where each prediction joins the context of the next" if "rolled" in errors else ""
    return (
        f"From the first {past} of {total} slots of an input, the predictor predicts the representations of the later "
        f"slots: all at once{rolled}. The chart shows the mean squared error of layer-normed representations beside "
        "three baselines: the last slot repeated; the mean of each later slot over "
        f"{section['train_samples']:,} training samples; and that mean plus the deviation of the last slot from its "
        f"own mean. On {section['test_samples']:,} held-out samples, predicting at once beats all baselines at {won} "
        f"of {len(horizons)} horizons; the band is its standard deviation over samples."
    )


def reproduction(run: Run) -> str:
    """The command that reproduces the run, versions, and the resolved config."""
    path = run.run_dir / "config.yaml"
    arguments = ["launch", "--modality", run.config.modality, "--config", str(path)]
    arguments += ["--run-dir", f"{run.run_dir}-again"]
    if not run.is_run:
        request = run.results["request"]
        tasks = [word for task in request["tasks"] for word in ("--task", task)]
        layers = [layer for layer in request["layers"] if isinstance(layer, str)]
        arguments = ["evaluate", request["source"], "--modality", run.config.modality, *tasks, *layers]
    text = path.read_text(encoding="utf-8") if path.exists() else to_yaml(run.config)
    versions = {"openjepa": _version("openjepa"), "torch": torch.__version__, "Python": platform.python_version()}
    rows = "".join(f"<dt>{name}</dt><dd>{escape(found)}</dd>" for name, found in versions.items())
    return (
        f"<h2>How to reproduce it</h2>\n<pre><code>{escape(shlex.join(['jepa', *arguments]))}</code></pre>\n"
        f"<p>This report was written with these versions:</p>\n<dl>{rows}</dl>\n"
        f"<details><summary>The resolved config</summary><pre><code>{escape(text)}</code></pre></details>"
    )


def _verdict(tasks: Mapping[str, Row]) -> str:
    if not tasks:
        return ""
    name, row = _main_task(tasks)
    others = {name: title for name, title in columns(tasks).items() if name != "jepa" and row.get(name) is not None}
    baselines = ", ".join(f"{_number(row, row[column])} {escape(title)}" for column, title in others.items())
    won, close = sum(best_columns(row) == ["jepa"] for row in tasks.values()), sum(map(is_close, tasks.values()))
    return (
        f"It reaches <strong>{_number(row, row['jepa'])}</strong> {escape(row['metric'])} "
        f"({escape(task_title(name, row))}) against {baselines}, and beats all baselines on {won} of {len(tasks)} "
        f"tasks{f', on {close} of them by less than two standard errors' if close else ''}."
    )


def _rival(tasks: Mapping[str, Row]) -> str:
    """A baseline that is at least as good as the trained encoder on the main task, in words; empty if there is none."""
    name, row = _main_task(tasks)
    rivals, titles = [column for column in best_columns(row) if column != "jepa"], columns(tasks)
    numbers = [f"{titles[column]} {_number(row, row[column])}" for column in (*rivals[:1], "jepa")]
    return f"{task_title(name, row)}: {', '.join(numbers)}." if rivals else ""


def _task_row(name: str, row: Row, names: Sequence[str]) -> str:
    metric = f"{row['metric']} {'↑' if row['higher_is_better'] else '↓'}"
    about = "".join(f"<small>{escape(text)}</small>" for text in (metric, *row.get("caveats", ())))
    html = f"<td>{escape(task_title(name, row))}{about}</td>"
    for column in names:
        spread = row.get("spread", {}).get(column)
        cell = _number(row, row.get(column))
        cell += "" if spread is None else f' <span class="spread">± {_number(row, spread)}</span>'
        html += f"<td{' class=best' if column in best_columns(row) else ''}>{cell}</td>"
    return f"<tr>{html}<td>{row['train_samples']:,}</td><td>{row['test_samples']:,}</td></tr>"


def _main_task(tasks: Mapping[str, Row]) -> tuple[str, Row]:
    return next((item for item in tasks.items() if item[0].endswith("/linear")), next(iter(tasks.items())))


def _number(row: Row, value: float | None) -> str:
    if value is None:
        return "-"
    if row["metric"] in ("accuracy", "recall"):
        return percent(value, 1)
    return f"{value:#.3g}" if abs(value) < 100 else f"{value:,.0f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
