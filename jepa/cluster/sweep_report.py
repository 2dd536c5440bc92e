"""`jepa sweep-report DIR`: the results of a sweep in one table and one plot."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from jepa.cluster.job import read_job
from jepa.cluster.status import statuses
from jepa.cluster.sweep import is_finished, read_sweep
from jepa.config import ConfigError
from jepa.console import command_parser, shown
from jepa.disk import write_text, writing
from jepa.errors import exit_status
from jepa.training.log import read_metrics


class SeedValues(NamedTuple):
    """Values of a metric over seeds."""

    values: tuple[float, ...]

    def __str__(self) -> str:
        if not self.values:
            return ""
        spread = f" ± {stdev(self.values):.4f}" if len(self.values) > 1 else ""
        return f"{fmean(self.values):.4f}{spread}"


class SweepRow(NamedTuple):
    """Runs that differ only in their seed."""

    values: dict[str, Any]  # section.key -> value, without the seed
    runs: int  # with results
    cells: dict[str, SeedValues]  # task -> metric of the trained encoder


def main(argv: Sequence[str] | None = None) -> int:
    """`jepa sweep-report DIR` -> exit status."""
    parser = command_parser("sweep-report", "Write the results of a sweep as a table and a plot.", "runs/sweep")
    parser.add_argument("folder", help="folder of the sweep")
    return exit_status(lambda: _report(Path(parser.parse_args(argv).folder)))


def _report(folder: Path) -> int:
    sweep = read_sweep(folder)
    if not sweep:
        raise ConfigError(f"{folder} holds no sweep: it has no sweep.json")
    found = rows(folder, sweep)
    keys = list(dict.fromkeys(key for row in found for key in row.values))  # runs of several sweeps differ in them
    columns = sorted({name for row in found for name in row.cells})
    heading = [*keys, "runs", *map(shown, columns)]
    lines = []
    for row in found:
        cells = [str(row.cells.get(name, SeedValues(()))) for name in columns]
        values = [_text(row.values[key]) if key in row.values else "" for key in keys]
        lines.append([*values, str(row.runs), *cells])
    table = "\n".join("| " + " | ".join(line) + " |" for line in [heading, ["---"] * len(heading), *lines])
    missing = [f"- {name}: {state}" for name, state in unfinished(folder, sweep).items()]
    text = "\n".join([table, "", *(["Without results:", "", *missing, ""] if missing else [])])
    write_text(folder / "sweep.md", text, folder / "sweep.md.partial")
    with writing(folder / "sweep.csv"), (folder / "sweep.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([heading, *lines])
    with writing(folder / "sweep.png"):
        plot(folder / "sweep.png", found, columns)
    print(text)
    print(f"table: {shown(folder / 'sweep.md')}, {shown(folder / 'sweep.csv')}; plot: {shown(folder / 'sweep.png')}")
    return 0


def rows(folder: Path, sweep: dict[str, dict[str, Any]]) -> list[SweepRow]:
    """Rows of the table: the runs of a sweep, grouped over seeds."""
    groups: dict[str, tuple[dict[str, Any], list[dict[str, float]]]] = {}
    for name, values in sweep.items():
        shared = {key: value for key, value in values.items() if key != "seed"}
        _, members = groups.setdefault(json.dumps(shared), (shared, []))
        if metrics := _metrics(folder / name):
            members.append(metrics)
    found = []
    for shared, members in groups.values():
        names = dict.fromkeys(name for member in members for name in member)
        cells = {name: SeedValues(tuple(member[name] for member in members if name in member)) for name in names}
        found.append(SweepRow(shared, len(members), cells))
    return found


def _metrics(run_dir: Path) -> dict[str, float]:
    """Task -> metric of a run, and its last loss; of a trained run without results the loss alone, else empty."""
    path = run_dir / "results.json"
    if not (path.exists() or is_finished(run_dir, train_only=True)):
        return {}
    tasks = json.loads(path.read_text())["tasks"] if path.exists() else {}
    found = {f"{name} ({task['metric']})": float(task["jepa"]) for name, task in tasks.items()}
    lines = read_metrics(run_dir)
    return {**found, "loss": float(lines[-1]["loss"])} if lines else found


def unfinished(folder: Path, sweep: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Runs without results, with their states; a run that was only trained has its loss in the table."""
    names = [name for name in sweep if not (folder / name / "results.json").exists()]
    sent = [name for name in names if read_job(folder / name)]
    known = dict(zip(sent, statuses([folder / name for name in sent]), strict=True))
    states = {name: f"{known[name].state} {known[name].reason}".strip() for name in sent}
    for name in names:
        lines = read_metrics(folder / name)
        if is_finished(folder / name, train_only=True):
            states.setdefault(name, "trained, not evaluated")
        states.setdefault(name, f"reached step {lines[-1]['step']}" if lines else "not started")
    return {name: shown(states[name]) for name in names}


def plot(path: Path, found: Sequence[SweepRow], columns: Sequence[str]) -> None:
    """Plot mean and standard deviation of every metric, one panel each."""
    from matplotlib.figure import Figure  # slow to import

    panels = columns or [""]
    figure = Figure(figsize=(7, 0.6 + len(panels) * (0.9 + 0.28 * len(found))), layout="constrained")
    labels = [
        ", ".join(f"{key.rpartition('.')[2]}={_text(value)}" for key, value in row.values.items()) for row in found
    ]
    for axes, name in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        for position, row in enumerate(found):
            values = row.cells[name].values if name in row.cells else ()
            if values:
                spread = stdev(values) if len(values) > 1 else 0.0
                axes.errorbar(fmean(values), position, xerr=spread, fmt="o", capsize=3, color="C0")
        axes.set_yticks(range(len(found)), labels, parse_math=False)  # a name may hold `$`
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_title(shown(name), parse_math=False)
    figure.savefig(path, dpi=120)


def _text(value: Any) -> str:
    return shown(value if isinstance(value, str) else json.dumps(value))
