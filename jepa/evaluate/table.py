"""Results as a table for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_HEADINGS = {"jepa": "trained", "random_init": "untrained"}
_PROTOCOL = ("train_samples", "test_samples", "spread", "draws", "chosen", "way", "queries", "gallery", "galleries")
_ABOUT = ("metric", "higher_is_better", *_PROTOCOL)
RESERVED = frozenset({"jepa", "random_init", "chance", *_ABOUT})  # no floor can have one of these names


def columns(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What stands beside one another in the tasks of `results.json`, with headings: encoders, floors, chance."""
    names = [name for row in tasks.values() for name in row if name not in (*_ABOUT, "chance")]
    return {name: _HEADINGS.get(name, name.replace("_", " ")) for name in dict.fromkeys([*names, "chance"])}


def print_table(results: Mapping[str, Any]) -> None:
    """Print the tasks of `results.json` with their baselines, the best in bold, on standard output."""
    further = max(0, len(columns(results["tasks"])) - 4)
    console = Console(width=None if Console().is_terminal else 110 + 16 * further)
    if results["tasks"]:
        console.print(_table(results))
    if "forecast" in results:
        console.print(_forecast_table(results["forecast"]))
    signs = results["collapse"]
    if signs:
        console.print(
            f"effective dimensions (RankMe) {signs['rankme']:.1f}, untrained {signs['rankme_random_init']:.1f}; "
            f"target std {signs['target_std']:.2f}; {signs['samples']} {signs['split']} samples",
            highlight=False,
        )
    if "streams" in results:
        _print_streams(console, results["streams"])
    for note in results["notes"]:
        console.print(note, highlight=False, markup=False)


def _print_streams(console: Console, streams: Mapping[str, Any]) -> None:
    """How far apart two streams lie, and how much one helps to predict the other."""
    if "gap" in streams:
        ranks = ", ".join(
            f"{name} {ranks['jepa']:.1f} (untrained {ranks['random_init']:.1f})"
            for name, ranks in streams["rankme"].items()
        )
        console.print(
            f"{' and '.join(streams['names'])}: matches score {streams['matched']['jepa']:.2f}, others "
            f"{streams['mismatched']['jepa']:.2f}; gap {streams['gap']['own']['jepa']:.2f}; RankMe {ranks}",
            highlight=False,
            markup=False,
        )
    if "gain" in streams:
        console.print(gain_words(streams), highlight=False, markup=False)


def gain_words(streams: Mapping[str, Any]) -> str:
    """What the second stream is worth when the first is predicted, in a sentence."""
    first, second = streams["names"]
    section = streams["gain"]
    base = section["error"]["without"]

    def changes(difference: Mapping[str, Any]) -> str:
        if difference["mean"] is None or not base:
            return "changes it by an unknown share"
        share, error = difference["mean"] / base, difference["standard_error"]
        spread = "" if error is None else f" (± {100 * error / base:.1f})"
        return f"{'raises' if share < 0 else 'lowers'} it by {abs(100 * share):.1f} %{spread}"

    own, other = (changes(section[f"without_minus_{name}"]) for name in ("own", "other"))
    return (
        f"The error of hidden {first} tokens: the {second} of a sample {own}, the {second} of another sample {other}; "
        f"{section['without_minus_own']['samples']} samples, standard errors in brackets."
    )


def _table(results: Mapping[str, Any]) -> Table:
    table = Table(
        title=f"{results['modality']}, step {results['steps']}, frozen {results['encoder'].replace('_', ' ')}"
    )
    table.add_column("task", overflow="fold")
    table.add_column("metric")
    headings = columns(results["tasks"])
    for title in headings.values():
        table.add_column(title, justify="right")
    for name, row in results["tasks"].items():
        arrow = "↑" if row["higher_is_better"] else "↓"
        table.add_row(name, f"{row['metric']} {arrow}", *_cells(row, list(headings)))
    return table


def _forecast_table(forecast: Mapping[str, Any]) -> Table:
    table = Table(title=f"mean square error of predicted slots, {forecast['test_samples']} samples")
    table.add_column("slots ahead", justify="right")
    for name in forecast["errors"]:
        table.add_column(name.replace("_", " "), justify="right")
    for place, horizon in enumerate(forecast["horizons"]):
        table.add_row(str(horizon), *(f"{errors[place]:.3f}" for errors in forecast["errors"].values()))
    return table


def _cells(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    values = [row[column] for column in names if row.get(column) is not None]
    best = max(values) if row["higher_is_better"] else min(values)
    spread = row.get("spread", {})
    cells = []
    for column in names:
        if row.get(column) is None:
            cells.append("-")
            continue
        text = f"{row[column]:.3f}" + (f" ± {spread[column]:.3f}" if column in spread else "")
        cells.append(f"[bold]{text}[/]" if row[column] == best else text)
    return cells
