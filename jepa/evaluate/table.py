"""The results as tables on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from jepa.console import printer, shown

_HEADINGS = {"jepa": "trained", "random_init": "untrained"}
_PROTOCOL = (
    "train_samples",
    "validation_samples",
    "test_samples",
    "test_labels",
    "spread",
    "draws",
    "chosen",
    "way",
    "queries",
    "gallery",
    "galleries",
)
_SCOPE = ("labels_per_class", "label_share", "caveats")
_ABOUT = ("metric", "higher_is_better", *_PROTOCOL, *_SCOPE)
RESERVED = frozenset({"jepa", "random_init", "chance", *_ABOUT})  # names that no baseline may have
_SHARES = ("accuracy", "recall")  # metrics that are shares of the test samples
Row = dict[str, Any]  # of the tasks in results.json


def columns(tasks: Mapping[str, Row]) -> dict[str, str]:
    """Columns of the tasks in results.json with their headings: encoders, baselines, chance."""
    names = [name for row in tasks.values() for name in row if name not in (*_ABOUT, "chance")]
    return {name: _HEADINGS.get(name, name.replace("_", " ")) for name in dict.fromkeys([*names, "chance"])}


def print_table(results: Mapping[str, Any], remarks: Sequence[str] = ()) -> None:
    """Print the content of results.json: tasks with the best column in bold, forecasts, collapse, remarks, notes."""
    further = max(0, len(columns(results["tasks"])) - 4)
    console = printer(width=None if printer().is_terminal else 110 + 16 * further)
    if results["tasks"]:
        console.print(_table(results))
    if "forecast" in results:
        console.print(_forecast_table(results["forecast"]))
    signs = results["collapse"]
    if signs:
        console.print(
            f"RankMe (effective dimensions) {signs['rankme']:.1f}, untrained {signs['rankme_random_init']:.1f}"
            f"{rank_limit(signs)}; target std {signs['target_std']:.2f}; {signs['samples']} {signs['split']} samples"
        )
    caveats = (f"* {line}" for line in caveat_lines(results["tasks"]))
    for line in filter(None, (error_line(results["tasks"]), *remarks, *caveats, *results["notes"])):
        console.print(shown(line))


def caveat_lines(tasks: Mapping[str, Row]) -> list[str]:
    """A line for each caveat, with the rows that it belongs to."""
    rows: dict[str, list[str]] = {}
    for name, row in tasks.items():
        for caveat in row.get("caveats", ()):
            rows.setdefault(caveat, []).append(name)
    return [f"{', '.join(names)}: {caveat}" for caveat, names in rows.items()]


def error_line(tasks: Mapping[str, Row]) -> str:
    """How far an accuracy may be from that on more test samples; empty without accuracies."""
    sizes = [row["test_samples"] for row in tasks.values() if row["metric"] in _SHARES]
    if not sizes or min(sizes) < 1:
        return ""
    return f"standard error of an accuracy on {min(sizes):,} test samples: at most {0.5 / min(sizes) ** 0.5:.3f}"


def is_close(row: Row) -> bool:
    """Whether the trained encoder leads by less than two standard errors of an accuracy or recall."""
    others = [row[column] for column in columns({"": row}) if column != "jepa" and row.get(column) is not None]
    if row["metric"] not in _SHARES or best_columns(row) != ["jepa"] or not others:
        return False
    shares = (row["jepa"], max(others))
    error = (sum(share * (1 - share) for share in shares) / row["test_samples"]) ** 0.5
    return bool(shares[0] - shares[1] < 2 * error)


def rank_limit(signs: Mapping[str, Any]) -> str:
    """The largest possible RankMe, in words, if the number of samples limits it; empty otherwise."""
    samples, dimensions = signs["samples"], signs.get("dimensions", 0)
    return f", at most {samples - 1} on {samples} samples" if samples <= dimensions else ""


def _table(results: Mapping[str, Any]) -> Table:
    what = f"step {results['steps']}" if results["steps"] else shown(str(results.get("source", "step 0")))
    title = f"{results['modality']}, {what}, frozen {results['encoder'].replace('_', ' ')}"
    return task_table(results["tasks"], title, columns(results["tasks"]))


def task_table(tasks: Mapping[str, Row], title: str, headings: Mapping[str, str]) -> Table:
    """A row for each task, the best column in bold. headings: of the columns."""
    table = Table(title=title)
    table.add_column("task", overflow="fold")
    table.add_column("metric")
    for heading in headings.values():
        table.add_column(heading, justify="right", overflow="fold")
    for name, row in tasks.items():
        arrow = "↑" if row["higher_is_better"] else "↓"
        label = f"{shown(name)}{' *' if row.get('caveats') else ''}"
        table.add_row(label, f"{row['metric']} {arrow}", *(_cell(row, column) for column in headings))
    return table


def _forecast_table(forecast: Mapping[str, Any]) -> Table:
    table = Table(title=f"mean squared error of forecasts, {forecast['test_samples']} samples")
    table.add_column("slots ahead", justify="right")
    for name in forecast["errors"]:
        table.add_column(name.replace("_", " "), justify="right")
    for index, horizon in enumerate(forecast["horizons"]):
        table.add_row(str(horizon), *(f"{errors[index]:.3f}" for errors in forecast["errors"].values()))
    return table


def best_columns(row: Row) -> list[str]:
    """The columns with the best number, several if they tie."""
    values = {column: row[column] for column in columns({"": row}) if row.get(column) is not None}
    best = max(values.values()) if row["higher_is_better"] else min(values.values())
    return [column for column, value in values.items() if value == best]


def _cell(row: Row, column: str) -> Text:
    if row.get(column) is None:
        return Text("-")
    spread = row.get("spread", {})
    text = f"{row[column]:.3f}" + (f" ± {spread[column]:.3f}" if column in spread else "")
    return Text(text, "bold" if column in best_columns(row) else "")
