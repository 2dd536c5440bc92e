"""Parts of a report that are words and numbers, as HTML: everything that a user named is escaped here."""

import platform
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from jepa.config import plain, to_yaml
from jepa.evaluate.table import columns
from jepa.report.charts import percent, task_title
from jepa.report.run import Run
from jepa.training.config import Config

Row = Mapping[str, Any]  # of the tasks in results.json


def heading(run: Run) -> str:
    """What the run is and how good it became, in a paragraph."""
    config, checkpoint = run.config, run.checkpoint
    data = plain(config.data)
    source = " from ".join(str(data[key]) for key in ("source", "root") if data.get(key))
    words = (
        f"{_networks(run)} that learned on {config.modality} data{f' ({source})' if source else ''} for "
        f"{checkpoint.step:,} steps of {config.optim.batch_size:,} samples, "
        f"{checkpoint.step * config.optim.batch_size:,} in all, in {_duration(checkpoint.seconds)}. Each input is "
        f"{_tokens(run)}; from some it learned to predict "
        f"{_predicted(config)} of others."
    )
    return f'<h1>{escape(run.title)}</h1>\n<p class="lead">{escape(words)} {_verdict(run.results.get("tasks", {}))}</p>'


def _networks(run: Run) -> str:
    """What the encoder is."""
    vit, size = getattr(run.config.model, "vit", None), getattr(run.config.model, "size", None)
    name = [size] if isinstance(size, str) else []
    if vit is None:
        about = f" ({name[0]})" if name else ""
        return f"An encoder of {run.parameters / 1e6:.3g} million parameters{about}"
    shape = ", ".join([*name, f"width {vit.width}", f"depth {vit.depth}", f"{vit.heads} heads"])
    return f"A transformer of {run.parameters / 1e6:.3g} million parameters ({shape})"


def _tokens(run: Run) -> str:
    """What an input is cut into."""
    grid = " x ".join(map(str, run.modality.grid))
    if not run.modality.streams:
        return f"{grid} tokens"
    first, *others = run.modality.streams
    parts = [f"{len(first.tokens)} tokens of {first.name}, {grid} of them on a grid,"]
    return " and ".join([*parts, *(f"{len(other.tokens)} of {other.name}" for other in others)])


def _predicted(config: Config[Any, Any]) -> str:
    """What is predicted: the values, the representation, or both, perhaps one later."""
    stages = config.stages
    first, last = stages[0], stages[-1]
    named = {"pixels": "the values", "latent": "the representation"}
    words = " and ".join(named.get(kind, f"what {kind} gives") for kind in last.weights)
    later = named.get(config.target, config.target)
    return words if len(stages) == 1 else f"the values, from step {first.steps:,} on also {later},"


def notices(run: Run) -> str:
    """Boxes for what a reader must know before believing anything else."""
    found, tasks = [], run.results.get("tasks", {})
    if warning := run.collapse_warning():
        found.append(("bad", "The representation looks bad", f"{warning[0].upper()}{warning[1:]}."))
    if run.checkpoint.step < run.config.steps:
        progress = f"This is step {run.checkpoint.step:,} of {run.config.steps:,}"
        found.append(("note", "The run is not finished", f"{progress}; the command that began it goes on from there."))
    if not run.results:
        command = shlex.join(["jepa", "evaluate", str(run.run_dir)])
        found.append(("bad", "Not evaluated", f"How good the encoder is has not been measured: {command}"))
    elif run.results.get("steps", run.checkpoint.step) != run.checkpoint.step:
        steps = f"step {run.results['steps']:,}, the checkpoint of step {run.checkpoint.step:,}"
        found.append(("note", "The evaluation is of another step", f"The evaluation is of {steps}."))
    elif not tasks:
        found.append(("bad", "Not measured", "No number tells how good the encoder is; the pictures have to."))
    elif rival := _rival(tasks):
        found.append(("bad", "Not better than a baseline", rival))
    found += [("note", "About the evaluation", note) for note in run.results.get("notes", [])]
    return "\n".join(
        f'<div class="box {kind}"><strong>{escape(title)}</strong>{escape(text)}</div>' for kind, title, text in found
    )


def task_table(tasks: Mapping[str, Row]) -> str:
    """Tasks beside their baselines, the best in bold."""
    headings = columns(tasks)
    head = "".join(f"<th>{escape(title)}</th>" for title in ("task", *headings.values(), "train", "test"))
    words = (
        f"Probes of frozen features, every column by the same protocol: the trained encoder, the encoder before "
        f"training, {_floors(headings)} and the best answer that ignores the input. The best is bold; ↑ means that "
        "more is better, ↓ that less is; train and test are numbers of labelled samples."
    )
    if any("spread" in row for row in tasks.values()):
        words += " After ± stands the standard deviation over draws of the labelled samples."
    if any(row["metric"] == "recall" for row in tasks.values()):
        words += (
            " Retrieval teaches no probe: its number is the share of queries for which a match is among the best of "
            "the gallery, equal scores counting as in random order."
        )
    rows = "\n".join(_task_row(name, row, list(headings)) for name, row in tasks.items())
    return (
        f'<h2>How good is it?</h2>\n<p>{words}</p>\n<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def forecast_words(section: Mapping[str, Any]) -> str:
    """What the prediction of later slots is measured against, and how it went."""
    errors, horizons = section["errors"], section["horizons"]
    floors = [values for name, values in errors.items() if name not in ("direct", "rolled")]
    won = sum(errors["direct"][place] < min(values[place] for values in floors) for place in range(len(horizons)))
    seen, whole = section["seen_slots"], section["seen_slots"] + len(horizons)
    rolled = " or slot by slot, each prediction being seen by the next," if "rolled" in errors else ""
    return (
        f"From the first {seen} of {whole} slots of an input the predictor tells, all at once{rolled} how the target "
        "encoder sees the later ones; shown is the mean square error on layer-normed representations. Beside it: the "
        "last slot seen comes again; only its deviation from the mean of its slot does; the mean of each later slot "
        f"over {section['train_samples']:,} training samples. On {section['test_samples']:,} held-out samples the "
        f"prediction at once beats all of these at {won} of {len(horizons)} horizons; the band is its standard "
        "deviation over samples."
    )


def reproduction(run: Run) -> str:
    """The command that repeats the run, versions, and the resolved config."""
    path = run.run_dir / "config.yaml"
    arguments = ["--modality", run.config.modality, "--config", str(path), "--run-dir", f"{run.run_dir}-again"]
    text = path.read_text(encoding="utf-8") if path.exists() else to_yaml(run.config)
    versions = {"openjepa": _version("openjepa"), "torch": torch.__version__, "Python": platform.python_version()}
    rows = "".join(f"<dt>{name}</dt><dd>{escape(found)}</dd>" for name, found in versions.items())
    return (
        f"<h2>How to repeat it</h2>\n<pre><code>{escape(shlex.join(['jepa', 'launch', *arguments]))}</code></pre>\n"
        f"<p>Versions with which this report was written:</p>\n<dl>{rows}</dl>\n"
        f"<details><summary>The resolved config</summary><pre><code>{escape(text)}</code></pre></details>"
    )


def _verdict(tasks: Mapping[str, Row]) -> str:
    if not tasks:
        return ""
    name = _main_task(tasks)
    row = tasks[name]
    others = {name: title for name, title in columns(tasks).items() if name != "jepa" and row.get(name) is not None}
    baselines = ", ".join(f"{_number(row, row[column])} {escape(title)}" for column, title in others.items())
    won = sum(_best(row) == ["jepa"] for row in tasks.values())
    return (
        f"It reaches <strong>{_number(row, row['jepa'])}</strong> {escape(row['metric'])} "
        f"({escape(task_title(name))}) against {baselines}, and beats all baselines on {won} of {len(tasks)} tasks."
    )


def _rival(tasks: Mapping[str, Row]) -> str:
    """The baseline that is as good as the trained encoder on the main task, in words; empty where none is."""
    name = _main_task(tasks)
    row = tasks[name]
    rivals = [column for column in _best(row) if column != "jepa"]
    if not rivals:
        return ""
    titles = columns(tasks)
    numbers = [f"{titles[column]} {_number(row, row[column])}" for column in (rivals[0], "jepa")]
    return f"{task_title(name)}: {', '.join(numbers)}."


def _floors(headings: Mapping[str, str]) -> str:
    """The columns that stand for the input, in words."""
    further = [title for name, title in headings.items() if name not in ("jepa", "random_init", "raw_input", "chance")]
    return "the input itself," + "".join(f" of it {escape(title)} alone," for title in further)


def _task_row(name: str, row: Row, names: Sequence[str]) -> str:
    metric = f"{row['metric']} {'↑' if row['higher_is_better'] else '↓'}"
    html = f"<td>{escape(task_title(name))}<small>{escape(metric)}</small></td>"
    for column in names:
        spread = row.get("spread", {}).get(column)
        shown = _number(row, row.get(column))
        shown += "" if spread is None else f' <span class="spread">± {_number(row, spread)}</span>'
        html += f"<td{' class=best' if column in _best(row) else ''}>{shown}</td>"
    return f"<tr>{html}<td>{row['train_samples']:,}</td><td>{row['test_samples']:,}</td></tr>"


def _main_task(tasks: Mapping[str, Row]) -> str:
    return next((name for name in tasks if name.endswith("/linear")), next(iter(tasks)))


def _best(row: Row) -> list[str]:
    """The columns with the best number, several where they share it."""
    values = {column: row[column] for column in columns({"": row}) if row.get(column) is not None}
    best = max(values.values()) if row["higher_is_better"] else min(values.values())
    return [column for column, value in values.items() if value == best]


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
