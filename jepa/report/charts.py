"""Charts of a report: tasks beside their baselines, forecasts by horizon, training curves."""

import io
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jepa.console import shown
from jepa.evaluate.labels import percentage
from jepa.evaluate.table import Row, columns
from jepa.training.log import PROBE

# On the page these colours become CSS variables, so that charts follow the light or dark theme.
_COLOURS = {"ink": "#1c2128", "soft": "#59636e", "line": "#d5dae0", "accent": "#2f5fd0", "second": "#8a939e"}
_COLOURS |= {"third": "#c3cad2", "fourth": "#dfb98a", "fifth": "#b9aedb", "note": "#8a5a00"}
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "font.size": 9, "axes.titlesize": 10, "font.family": "DejaVu Sans"}
_BARS = ("accent", "second", "third", "fourth", "fifth")  # one per column of the table
_LINES = (("accent", "third"), ("note", "fourth"), ("second", "fifth"))  # per stream: smoothed, raw
FORECASTS = {  # legend, colour, line
    "direct": ("predicted at once", "accent", "o-"),
    "rolled": ("predicted slot by slot", "accent", "o--"),
    "repeat": ("last slot repeated", "second", "s-"),
    "repeat_centred": ("training mean + last deviation", "fourth", "s-"),
    "mean": ("training mean", "fifth", "s-"),
}
CURVES = {
    PROBE: ("k-NN accuracy", "of the probe on validation samples; the dot is its best one"),
    "loss": ("loss", "distance to what is predicted, or between views, in the batch"),
    "total_loss": ("total loss", "what is minimised: with the regulariser and the contrast, each with its weight"),
    "target_std": ("target std", "spread of the evaluated encoder over inputs; near 0 means collapse"),
    "rankme": ("RankMe", "effective number of dimensions"),
    "cosine": ("cosine", "mean cosine of two inputs; near 1 means collapse"),
    "learning_rate": ("learning rate", "of the optimiser"),
    "momentum": ("momentum", "of the target encoder; 0 at a copy"),
    "gradient_norm": ("gradient norm", "over all parameters, before clipping"),
}
_NOISY = ("loss", "total_loss", "gradient_norm", "target_std", "rankme", "cosine")


def percent(share: float, digits: int = 0) -> str:
    """0.612 -> 61.2 %."""
    return f"{100 * share:z.{digits}f} %"


def task_title(name: str, row: Row | None = None) -> str:
    """Key of results.json -> title: `class/low_shot_12` -> `class, 12 labels per class`, or fewer as the row says."""
    label, _, probe = name.partition("/")
    probes = {
        "linear": "linear probe",
        "linear_last4": "linear probe, last 4 layers",
        "linear_pooled": "linear probe, own pooling",
        "knn": "nearest neighbours",
        "knn_pooled": "nearest neighbours, own pooling",
        "ridge_pooled": "ridge probe, own pooling",
        "ridge": "ridge probe",
        "attentive": "attentive probe",
        "low_shot_1pct": "1 % of the labels",
        "zero_shot": "zero-shot by class names",
    }
    if label == "retrieval":
        direction, _, rest = probe.partition("@")  # first_to_second@5
        k, _, similarity = rest.partition("_")
        return f"retrieval, {direction}, top {k}{', by prediction' if similarity else ''}".replace("_", " ")
    title = probes.get(probe, probe)
    if shots := re.fullmatch(r"low_shot_(\d+)", probe):
        title = f"{_shots(row or {}, shots[1])} labels per class"
    elif row and probe == "low_shot_1pct" and "label_share" in row:
        title = f"{percentage(row['label_share'])} of the labels"
    if blocks := re.fullmatch(r"attentive(\d+)", probe):
        title = f"attentive probe, {blocks[1]} blocks"
    return f"{label}, {title}".removesuffix(", ").replace("_", " ")


def _shots(row: Row, asked: str) -> str:
    """Labels of each class that train a probe: `12`, or `4 to 12` if classes have fewer."""
    fewest, most = row.get("labels_per_class", (asked, asked))
    return f"{most}" if fewest == most else f"{fewest} to {most}"


def progress(row: Row, column: str) -> float | None:
    """Score of a column on a scale from chance (0) to a perfect score (1); None if a number is missing."""
    value, chance = row.get(column), row.get("chance")
    perfect = 1.0 if row["higher_is_better"] else 0.0
    if value is None or chance is None or chance == perfect:
        return None
    return float((value - chance) / (perfect - chance))


def task_chart(tasks: Mapping[str, Row]) -> Figure:
    """Horizontal bars of every task from chance (0) to a perfect score (1), so that all metrics share an axis."""
    bars = {name: title for name, title in columns(tasks).items() if name != "chance"}
    height = 0.78 / max(3, len(bars))
    figure = Figure(figsize=(8.6, 0.75 + 0.56 / 3 * max(3, len(bars)) * len(tasks)), layout="constrained")
    axes = figure.subplots()
    in_legend: set[str] = set()
    for index, row in enumerate(tasks.values()):
        for offset, column in enumerate(bars):
            share, colour = progress(row, column), _COLOURS[_BARS[offset % len(_BARS)]]
            if share is not None:
                label = None if column in in_legend else bars[column]
                in_legend.add(column)
                centre = index + height * (offset - (len(bars) - 1) / 2)
                axes.barh(centre, max(share, -0.25), height=height - 0.02, color=colour, label=label)
                number = axes.annotate(percent(share), (max(share, 0), centre), (3, 0), textcoords="offset points")
                number.set(va="center", fontsize=7.5, color=_COLOURS["soft"])
    titles = [shown(task_title(name, row)) for name, row in tasks.items()]
    axes.set_yticks(range(len(tasks)), titles, parse_math=False)  # a name may hold `$`
    axes.invert_yaxis()
    axes.axvline(0, color=_COLOURS["soft"], linewidth=0.8)
    axes.set_xlim(min(0.0, axes.get_xlim()[0]), 1.0)
    axes.xaxis.set_major_formatter(lambda value, _: percent(value))
    axes.set_xlabel("score between chance (0 %) and perfect (100 %)")
    if in_legend:
        figure.legend(loc="outside upper right", ncols=max(3, len(bars)), frameon=False, labelcolor=_COLOURS["ink"])
    else:
        axes.set_title("no bar can be drawn: chance is perfect, or unknown", color=_COLOURS["soft"])
    _plain(axes, lines="x")
    return figure


def forecast_chart(section: Mapping[str, Any]) -> Figure:
    """Error of each forecast by horizon, with the standard deviation over samples of `direct`."""
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    axes, horizons = figure.subplots(), section["horizons"]
    for name, values in section["errors"].items():
        title, colour, style = FORECASTS[name]
        axes.plot(horizons, values, style, color=_COLOURS[colour], label=title, linewidth=1.8, markersize=4)
    mean, spread = section["errors"]["direct"], section["spread"]["direct"]
    low, high = ([value + sign * width for value, width in zip(mean, spread, strict=True)] for sign in (-1, 1))
    axes.fill_between(horizons, low, high, color=_COLOURS["accent"], alpha=0.12, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("slots after the context")
    axes.set_title("mean squared error", loc="left", color=_COLOURS["ink"], fontweight="bold")
    figure.legend(loc="outside right upper", frameon=False, labelcolor=_COLOURS["ink"])
    _plain(axes)
    return figure


def curve(metrics: Sequence[Mapping[str, Any]], name: str, wide: bool, streams: Sequence[str] = ()) -> Figure:
    """A logged value by step, raw and smoothed, of every stream that logged it."""
    figure = Figure(figsize=(8.6, 2.9) if wide else (3.9, 2.2), layout="constrained")
    axes = figure.subplots()
    keys = [name, *(f"{stream}_{name}" for stream in streams[1:])]
    logged = [number for number, key in enumerate(keys) if any(key in line for line in metrics)]
    for number in logged:
        _plot_metric(axes, metrics, keys[number], name in _NOISY, _LINES[number % len(_LINES)])
    if len(logged) > 1:
        lines = [Line2D([], [], color=_COLOURS[_LINES[number % len(_LINES)][0]]) for number in logged]
        axes.legend(lines, [streams[number] for number in logged], frameon=False, labelcolor=_COLOURS["ink"])
    axes.set_xlim(0, max(line["step"] for line in metrics))
    axes.set_title(CURVES[name][0], loc="left", color=_COLOURS["ink"], fontweight="bold")
    axes.locator_params(nbins=5)
    axes.ticklabel_format(useOffset=False, axis="y", scilimits=(-3, 4))
    if name == PROBE:
        top = max((line for line in metrics if PROBE in line), key=lambda line: line[PROBE])
        axes.plot(top["step"], top[PROBE], "o", color=_COLOURS["accent"], markersize=5)
        low, high = axes.get_ylim()
        axes.yaxis.set_major_formatter(lambda value, _: percent(value, int(high - low < 0.05)))
    if wide:
        axes.set_xlabel("step")
    _plain(axes)
    return figure


def _plot_metric(
    axes: Axes, metrics: Sequence[Mapping[str, Any]], key: str, noisy: bool, colours: tuple[str, str]
) -> None:
    """One line. A noisy one is drawn smoothed in the first colour over the raw values in the second."""
    points = [(line["step"], line[key]) for line in metrics if math.isfinite(line.get(key, math.nan))]
    steps, values = [step for step, _ in points], [value for _, value in points]
    noisy = noisy and len(points) >= 24
    strong, weak = (_COLOURS[colour] for colour in colours)
    axes.plot(steps, values, color=weak if noisy else strong, linewidth=1.1 if noisy else 1.6)
    if noisy:
        axes.plot(steps, smooth(values), color=strong, linewidth=1.8)
    if len(points) < 3:
        axes.plot(steps, values, "o", color=strong, markersize=4)


def smooth(values: Sequence[float]) -> list[float]:
    """Centred moving average over a twelfth of the values, with narrower windows at the ends."""
    reaches = [min(len(values) // 24, index, len(values) - 1 - index) for index in range(len(values))]
    return [statistics.fmean(values[index - reach : index + reach + 1]) for index, reach in enumerate(reaches)]


def save_png(figure: Figure, path: Path) -> None:
    """Lay the figure out, and save it as PNG on white."""
    with mpl.rc_context(_STYLE):
        if engine := figure.get_layout_engine():
            engine.execute(figure)
            figure.set_layout_engine(None)  # keeps the layout, which every drawing would compute twice
        figure.savefig(path, dpi=160, facecolor="white")


def to_svg(figure: Figure, name: str) -> str:
    """The figure as inline SVG with the colours and fonts of the page; `name` makes its ids unique."""
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        no_metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"| height="[^"]*"', r"\1", svg, count=2)
    svg = re.sub(r' id="(figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|legend)_\d+"', "", svg)
    for variable, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg


def _plain(axes: Axes, lines: Literal["both", "x"] = "both") -> None:
    axes.grid(axis=lines, color=_COLOURS["line"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_COLOURS["ink"])
    axes.xaxis.label.set_color(_COLOURS["soft"])
    for spine in axes.spines.values():
        spine.set_visible(False)
