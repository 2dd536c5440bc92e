"""Charts of a report: gain over the baselines, and what the run logged step by step."""

import io
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jepa.evaluate.table import columns

# On the page the colours of a chart are those of the page, light or dark: these stand for its CSS variables.
_COLOURS = {"ink": "#1c2128", "soft": "#59636e", "line": "#d5dae0", "accent": "#2f5fd0", "second": "#8a939e"}
_COLOURS |= {"third": "#c3cad2", "fourth": "#dfb98a", "fifth": "#b9aedb", "note": "#8a5a00"}
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "font.size": 9, "axes.titlesize": 10, "font.family": "DejaVu Sans"}
_BARS = ("accent", "second", "third", "fourth", "fifth")  # one for each column of the table
_LINES = (("accent", "third"), ("note", "fourth"), ("second", "fifth"))  # of streams: smoothed, raw
COURSES = {  # of the forecast: words, colour, line
    "direct": ("predicted at once", "accent", "o-"),
    "rolled": ("predicted slot by slot", "accent", "o--"),
    "repeat": ("last slot seen repeated", "second", "s-"),
    "repeat_centred": ("its deviation repeated", "fourth", "s-"),
    "mean": ("mean over training", "fifth", "s-"),
}
CURVES = {
    "loss": ("loss", "prediction loss of the batch"),
    "target_std": ("target std", "how much targets differ between inputs; near 0 is collapse"),
    "rankme": ("RankMe", "effective number of dimensions"),
    "cosine": ("cosine", "mean cosine between two inputs; near 1 is collapse"),
    "learning_rate": ("learning rate", "of AdamW"),
    "momentum": ("momentum", "of the target encoder"),
    "gradient_norm": ("gradient norm", "over all parameters, before clipping"),
}


_NOISY = ("loss", "gradient_norm", "target_std", "rankme", "cosine")


def percent(share: float, digits: int = 0) -> str:
    """0.612 -> 61.2 %."""
    return f"{100 * share:z.{digits}f} %"


def task_title(name: str) -> str:
    """Key of results.json -> words: `class/low_shot_12` -> `class, 12 labels a class`."""
    label, _, probe = name.partition("/")
    probes = {
        "linear": "linear probe",
        "linear_last4": "linear probe, last 4 layers",
        "knn": "nearest neighbours",
        "ridge": "ridge probe",
        "attentive": "attentive probe",
        "low_shot_1pct": "1 % of the labels",
        "zero_shot": "by the names of classes",
    }
    if label == "retrieval":
        return _retrieval_title(probe)
    shots = re.fullmatch(r"low_shot_(\d+)", probe)
    deep = re.fullmatch(r"attentive(\d+)", probe)
    words = f"{shots[1]} labels a class" if shots else probes.get(probe, probe)
    words = f"attentive probe, {deep[1]} blocks" if deep else words
    return f"{label}, {words}".removesuffix(", ").replace("_", " ")


def _retrieval_title(probe: str) -> str:
    """`first_to_second@5` -> words."""
    direction, _, rest = probe.partition("@")
    best, _, way = rest.partition("_")
    words = f"retrieval, {direction}, {'first' if best == '1' else f'among {best}'}{', as predicted' if way else ''}"
    return words.replace("_", " ")


def progress(row: Mapping[str, Any], column: str) -> float | None:
    """How far a column of a task has come from chance (0) to perfection (1); None where a number is missing."""
    value, chance = row.get(column), row.get("chance")
    perfect = 1.0 if row["higher_is_better"] else 0.0
    if value is None or chance is None or chance == perfect:
        return None
    return float((value - chance) / (perfect - chance))


def gain_chart(tasks: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Horizontal bars of every task: chance is 0, perfection 1, so that all metrics share an axis."""
    bars = {name: title for name, title in columns(tasks).items() if name != "chance"}
    height = 0.78 / max(3, len(bars))
    figure = Figure(figsize=(8.6, 0.75 + 0.56 / 3 * max(3, len(bars)) * len(tasks)), layout="constrained")
    axes = figure.subplots()
    named: set[str] = set()
    for place, row in enumerate(tasks.values()):
        for offset, column in enumerate(bars):
            share, colour = progress(row, column), _COLOURS[_BARS[offset % len(_BARS)]]
            if share is not None:
                label = bars[column] if column not in named else None
                named.add(column)
                centre = place + height * (offset - (len(bars) - 1) / 2)
                axes.barh(centre, max(share, -0.25), height=height - 0.02, color=colour, label=label)
                number = axes.annotate(percent(share), (max(share, 0), centre), (3, 0), textcoords="offset points")
                number.set(va="center", fontsize=7.5, color=_COLOURS["soft"])
    axes.set_yticks(range(len(tasks)), [task_title(name) for name in tasks])
    axes.invert_yaxis()
    axes.axvline(0, color=_COLOURS["soft"], linewidth=0.8)
    axes.set_xlim(min(0.0, axes.get_xlim()[0]), 1.0)
    axes.xaxis.set_major_formatter(lambda value, _: percent(value))
    axes.set_xlabel("way from chance (0 %) to perfection (100 %)")
    axes.grid(axis="x", color=_COLOURS["line"], linewidth=0.6)
    figure.legend(loc="outside upper right", ncols=max(3, len(bars)), frameon=False, labelcolor=_COLOURS["ink"])
    _plain(axes)
    return figure


def forecast_chart(section: Mapping[str, Any]) -> Figure:
    """Error of what is predicted against how far ahead it lies, with the deviation over samples of `direct`."""
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    axes, horizons = figure.subplots(), section["horizons"]
    for name, values in section["errors"].items():
        title, colour, style = COURSES[name]
        axes.plot(horizons, values, style, color=_COLOURS[colour], label=title, linewidth=1.8, markersize=4)
    mean, spread = section["errors"]["direct"], section["spread"]["direct"]
    low, high = ([value + sign * width for value, width in zip(mean, spread, strict=True)] for sign in (-1, 1))
    axes.fill_between(horizons, low, high, color=_COLOURS["accent"], alpha=0.12, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("slots after the last one seen", color=_COLOURS["soft"])
    axes.set_title("mean square error", loc="left", color=_COLOURS["ink"], fontweight="bold")
    axes.grid(color=_COLOURS["line"], linewidth=0.6)
    figure.legend(loc="outside right upper", frameon=False, labelcolor=_COLOURS["ink"])
    _plain(axes)
    return figure


def curve(metrics: Sequence[Mapping[str, Any]], name: str, wide: bool, streams: Sequence[str] = ()) -> Figure:
    """What was logged under a name by step, raw and smoothed; beside it the same of further streams."""
    figure = Figure(figsize=(8.6, 2.9) if wide else (3.9, 2.2), layout="constrained")
    axes = figure.subplots()
    keys = [name, *(f"{stream}_{name}" for stream in streams[1:])]
    there = [number for number, key in enumerate(keys) if any(key in line for line in metrics)]
    for number in there:
        _course(axes, metrics, keys[number], name in _NOISY, _LINES[number % len(_LINES)])
    if len(there) > 1:
        drawn = [Line2D([], [], color=_COLOURS[_LINES[number % len(_LINES)][0]]) for number in there]
        axes.legend(drawn, [streams[number] for number in there], frameon=False, labelcolor=_COLOURS["ink"])
    axes.set_xlim(0, max(line["step"] for line in metrics))
    axes.set_title(CURVES[name][0], loc="left", color=_COLOURS["ink"], fontweight="bold")
    axes.locator_params(nbins=5)
    axes.ticklabel_format(useOffset=False, axis="y", scilimits=(-3, 4))
    axes.grid(color=_COLOURS["line"], linewidth=0.6)
    if wide:
        axes.set_xlabel("step", color=_COLOURS["soft"])
    _plain(axes)
    return figure


def _course(axes: Axes, metrics: Sequence[Mapping[str, Any]], key: str, noisy: bool, colours: tuple[str, str]) -> None:
    """One line: raw in the second of the colours where it is noisy, and smoothed in the first."""
    points = [(line["step"], line[key]) for line in metrics if math.isfinite(line.get(key, math.nan))]
    steps, values = [step for step, _ in points], [value for _, value in points]
    noisy = noisy and len(points) >= 24
    strong, weak = (_COLOURS[colour] for colour in colours)
    axes.plot(steps, values, color=weak if noisy else strong, linewidth=1.1 if noisy else 1.6)
    if noisy:
        axes.plot(steps, smoothed(values), color=strong, linewidth=1.8)
    if len(points) < 3:
        axes.plot(steps, values, "o", color=strong, markersize=4)


def smoothed(values: Sequence[float]) -> list[float]:
    """Mean over a window of about a twelfth of the values, centred so that it does not lag, narrower at the ends."""
    result = []
    for place in range(len(values)):
        reach = min(len(values) // 24, place, len(values) - 1 - place)
        result.append(statistics.fmean(values[place - reach : place + reach + 1]))
    return result


def save_png(figure: Figure, path: Path) -> None:
    """The figure as a picture on white."""
    with mpl.rc_context(_STYLE):
        figure.savefig(path, dpi=160, facecolor="white")
    figure.set_layout_engine("none")  # keeps the layout, which need not be found twice


def to_svg(figure: Figure, name: str) -> str:
    """The figure as inline SVG that takes its colours and letters from the page; `name` makes its ids its own."""
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"| height="[^"]*"', r"\1", svg, count=2)
    svg = re.sub(r' id="(figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|legend)_\d+"', "", svg)
    for variable, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg


def _plain(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_COLOURS["ink"])
    axes.xaxis.label.set_color(_COLOURS["soft"])
    for spine in axes.spines.values():
        spine.set_visible(False)
