"""The figure of the curves of one data set, as SVG."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.study.log import Record
from benchmarks.study.scores import FLOORS, error, floor_runs, spoken, values

PANELS = {
    "class/linear": "linear probe",
    "class/attentive": "attentive probe",
    "class/knn": "k-NN",
    "class/low_shot_12": "12 labels a class",
}
# Okabe and Ito's colours, which all kinds of colour vision tell apart; each arm also has a marker of its own.
STYLES = [
    *(("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P")),
    *(("#000000", "X"), ("#999999", "*")),
]


def draw(name: str, curves: Sequence[Record], path: Path) -> None:
    """Draw the curves of all arms, a panel per score, with the scores of untrained and raw pixels as lines."""
    arms = sorted({one["arm"] for one in curves})
    styles = {arm: STYLES[index % len(STYLES)] for index, arm in enumerate(arms)}
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(9, 6.5), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True)
        for panel, (row, title) in zip(panels.flat, PANELS.items(), strict=True):
            for arm in arms:
                _curve(panel, [one for one in curves if one["arm"] == arm], row, styles[arm])
            _floors(panel, curves, row)
            panel.set_title(title, loc="left")
            panel.set_ylabel("accuracy")
            panel.grid(alpha=0.25)
        for panel in panels[-1]:
            _minutes(panel, sorted({one["budget"] for one in curves}))
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def _curve(panel: Any, runs: Sequence[Record], row: str, style: tuple[str, str]) -> None:
    """The mean over seeds at each budget, with its standard error."""
    budgets = sorted({one["budget"] for one in runs})
    scores = {minutes: values([one for one in runs if one["budget"] == minutes], row, "jepa") for minutes in budgets}
    points = [(minutes, fmean(of_seeds), error(of_seeds)) for minutes, of_seeds in scores.items() if of_seeds]
    if points:
        x, y, spread = zip(*points, strict=True)
        colour, marker = style
        label = spoken(runs[0]["arm"])
        panel.errorbar(x, y, yerr=spread, color=colour, marker=marker, label=label, linewidth=1.5, markersize=5)


def _floors(panel: Any, runs: Sequence[Record], row: str) -> None:
    for (column, label), line in zip(FLOORS.items(), ("--", ":"), strict=True):
        if scores := values(floor_runs(runs), row, column):
            panel.axhline(fmean(scores), color="black", linestyle=line, linewidth=1, label=label)


def _minutes(panel: Any, budgets: Sequence[float]) -> None:
    panel.set_xscale("log")
    panel.set_xticks(budgets, [f"{minutes:g}" for minutes in budgets])
    panel.minorticks_off()
    panel.set_xlabel("minutes of two cores")
