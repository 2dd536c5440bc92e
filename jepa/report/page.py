"""A run directory -> report.html: results, training curves, pictures of what was learned, how to reproduce it."""

import argparse
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from jepa.console import command_parser, shown
from jepa.data import DataError
from jepa.disk import writing
from jepa.errors import exit_status
from jepa.report.cards import Card, mosaic
from jepa.report.charts import CURVES, curve, forecast_chart, percent, save_png, task_chart, to_svg
from jepa.report.cross_modal import gain_table, retrieval_gallery, retrieval_words, retrieve
from jepa.report.galleries import (
    GallerySamples,
    error_gallery,
    feature_gallery,
    gallery_samples,
    mask_gallery,
    neighbour_gallery,
    same_class,
)
from jepa.report.html import cards_html, write_page
from jepa.report.probe import probe_words
from jepa.report.run import Run, read_run, report_samples
from jepa.report.text import forecast_words, heading, notices, reproduction, task_table
from jepa.training.log import PROBE


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m jepa.report.page RUN_DIR` -> exit status."""
    parser = command_parser(
        "report",
        "Write report.html and figures/ of a run, or of another source into the folder of its results.",
        "runs/demo",
    )
    parser.add_argument("run_dir", type=Path, help="run directory, or a folder with results.json of `jepa evaluate`")
    parser.add_argument("--trust", action="store_true", help="import code that a checkpoint names")
    return exit_status(lambda: _show(parser.parse_args(argv)))


def write_report(run_dir: Path, trust: bool = False) -> Path:
    """Write report.html, a self-contained file, and its figures as PNG -> path of the report.

    trust: as in `open_source`. Raises CheckpointError if there is no checkpoint.
    """
    run = read_run(run_dir, trust)
    with writing(run_dir / "report.html"):
        return _write_report(run, run_dir)


def _write_report(run: Run, run_dir: Path) -> Path:
    (run_dir / "figures").mkdir(exist_ok=True)
    parts = [heading(run), notices(run), _tasks(run), _forecast(run), gain_table(run.results.get("streams", {}))]
    parts += [_curves(run), _pictures(run), _retrieval(run), reproduction(run)]
    return write_page(run_dir / "report.html", run.title, parts)


def _show(arguments: argparse.Namespace) -> int:
    print(shown(write_report(arguments.run_dir, arguments.trust)))
    return 0


def _tasks(run: Run) -> str:
    tasks = run.results.get("tasks", {})
    if not tasks:
        return ""
    alt = "Bars: the score of each column of the table between chance and perfect"
    return task_table(tasks) + _chart(run, "tasks", task_chart(tasks), alt, "wide")


def _forecast(run: Run) -> str:
    section = run.results.get("forecast")
    if not section:
        return ""
    alt = "Lines: error of each forecast by the number of slots ahead"
    chart = _chart(run, "forecast", forecast_chart(section), alt, "wide")
    return f"<h2>How far ahead can it predict?</h2>\n<p>{forecast_words(section)}</p>{chart}"


def _curves(run: Run) -> str:
    named = [name for name in CURVES if _says_something(name, run.metrics)]
    if not named:
        return ""
    charts, streams = {}, [stream.name for stream in run.modality.streams]
    for name in named:
        title, meaning = CURVES[name]
        kind = "wide" if name in ("loss", PROBE) else ""
        drawn = _chart(run, name, curve(run.metrics, name, bool(kind), streams), f"{title} by step", kind)
        charts[name] = drawn.replace("</figure>", f"<figcaption>{meaning}</figcaption></figure>")
    words = probe_words(run.metrics, run.config)
    words += (
        "The loss alone does not show how good a representation is: its targets change during training, and the loss "
        "of a collapsed encoder is near 0. Target std, RankMe and cosine show whether the representation still "
        "separates inputs."
    )
    wide = charts.pop(PROBE, "") + charts.pop("loss", "")
    return f'<h2>How training went</h2>\n<p>{words}</p>\n{wide}\n<div class="panels">{"".join(charts.values())}</div>'


def _says_something(name: str, metrics: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a curve was logged; not the momentum of a frozen target encoder or a total that is the loss."""
    lines = [line for line in metrics if name in line]
    if name == "momentum":
        return any(line[name] != 1 for line in lines)
    return any(name != "total_loss" or line[name] != line["loss"] for line in lines)


def _pictures(run: Run) -> str:
    no_pictures = _section("What it learned", "There are no pictures: {}.")
    try:
        samples = gallery_samples(run.modality, report_samples(run.modality), run.encoders, run.sample_limit)
    except DataError as error:
        return no_pictures.format(escape(str(error)))
    if not samples.pictures:
        return no_pictures.format("this modality has none, or no sample can be read")
    parts = []
    if samples.pictures[0].dim() == len(run.modality.grid) + 1:
        words = (
            "Red, green and blue are the three strongest principal components of the token features, after "
            "subtracting the mean of each input. Similar colours mean similar features. Colours are not comparable "
            "between encoders."
        )
        colours = feature_gallery(samples, run.modality.grid)
        features = _gallery(run, "features", "Features as colours", words, colours, 20)
        predicts = run.opened.has_predictor and any(stage.predicts_tokens for stage in run.config.stages)
        parts += [_masks(run, samples) if predicts else "", features, _errors(run, samples)]
    else:
        axes = f"the grid has {len(run.modality.grid)} axes, the pictures have {samples.pictures[0].dim() - 1}"
        parts.append(_section("What it learned", f"Masks and features are not drawn: {axes}."))
    if len(samples.thumbnails) > 1:
        words = _neighbour_words(samples)
        parts.append(_gallery(run, "neighbours", "Nearest neighbours", words, neighbour_gallery(samples), 40))
    return "\n".join(filter(None, parts))


def _retrieval(run: Run) -> str:
    try:
        found = retrieve(run, report_samples(run.modality))
    except DataError:
        return ""  # the other galleries say so
    if found is None:
        return ""
    words = retrieval_words(found, [stream.name for stream in run.modality.streams])
    return _gallery(run, "matches", "What it retrieves", words, retrieval_gallery(found), 30)


def _masks(run: Run, samples: GallerySamples) -> str:
    words = (
        "The context encoder sees the part that is not hatched. From it, the predictor predicts the target encoder's "
        "representation of each coloured block."
    )
    streams = [escape(stream.name) for stream in run.modality.streams]
    if streams:
        words += f" Pictures show the {streams[0]} alone; the line above them counts the tokens of every stream."
    cards = mask_gallery(run.modality, samples)
    return _gallery(run, "masks", "What it had to predict", words, cards, 40 if streams else 20)


def _errors(run: Run, samples: GallerySamples) -> str:
    forecaster = run.forecaster()
    if forecaster is None:
        return ""
    words = (
        "The first part of each input is the context. Colours on the rest show the error of the predicted "
        "representations, from dark (small) to bright (large), on one scale."
    )
    cards = error_gallery(samples, forecaster, run.modality.grid)
    return _gallery(run, "errors", "Where its forecasts are wrong", words, cards, 24)


def _neighbour_words(samples: GallerySamples) -> str:
    words = (
        f"Random queries, and for each encoder the nearest of {len(samples.thumbnails):,} pictures by cosine of their "
        "features: the mean over tokens, minus the mean over pictures."
    )
    shares = same_class(samples)
    if not shares:
        return words
    found = ", ".join(f"{name} {percent(share, 1)}" for name, share in shares.items())
    return f'{words} <span class="key">Outlined</span> ones have the class of the query. Over all queries: {found}.'


def _section(title: str, words: str) -> str:
    return f"<h2>{title}</h2>\n<p>{words}</p>\n"


def _chart(run: Run, name: str, figure: Figure, alt: str, kind: str) -> str:
    save_png(figure, run.run_dir / "figures" / f"{name}.png")
    return f'<figure class="chart {kind}"><div role="img" aria-label="{alt}">{to_svg(figure, name)}</div></figure>'


def _gallery(run: Run, name: str, title: str, words: str, cards: Sequence[Card], width: int) -> str:
    """Save a gallery as PNG -> section in HTML; width: least width of a card in rem."""
    mosaic(cards).save(run.run_dir / "figures" / f"{name}.png")
    return _section(title, words) + cards_html(cards, width)
