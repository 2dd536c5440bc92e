"""A run directory -> report.html: how good the encoder is, how training went, what was learned, how to repeat it."""

import os
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from jepa.console import command_parser
from jepa.data import DataError
from jepa.errors import exit_status
from jepa.report.cards import Card, Picture, Strip, mosaic
from jepa.report.charts import CURVES, curve, forecast_chart, gain_chart, percent, save_png, to_svg
from jepa.report.cross_modal import find, gain_table, match_gallery, match_words
from jepa.report.galleries import (
    Shown,
    error_gallery,
    feature_gallery,
    look,
    mask_gallery,
    neighbour_gallery,
    same_class,
)
from jepa.report.run import Run, read_run, shown_samples
from jepa.report.text import forecast_words, heading, notices, reproduction, task_table


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m jepa.report.page RUN_DIR` -> exit status."""
    parser = command_parser("report", "Write report.html and figures/ of a run.", "runs/demo")
    parser.add_argument("run_dir", type=Path, help="run directory")
    return exit_status(lambda: _show(parser.parse_args(argv).run_dir))


def write_report(run_dir: Path) -> Path:
    """Write report.html, a single file that opens offline, and its figures as PNG -> path of the report.

    Raises CheckpointError where there is no checkpoint.
    """
    run = read_run(run_dir)
    (run_dir / "figures").mkdir(exist_ok=True)
    parts = [heading(run), notices(run), _tasks(run), _forecast(run), gain_table(run.results.get("streams", {}))]
    parts += [_curves(run), _pictures(run), _matches(run), reproduction(run)]
    template = Template((files("jepa.report") / "template.html").read_text(encoding="utf-8"))
    path, aside = run_dir / "report.html", run_dir / "report.html.partial"
    aside.write_text(template.substitute(title=escape(run.title), body="\n".join(parts)), encoding="utf-8")
    os.replace(aside, path)  # noqa: PTH105 - atomic
    return path


def _show(run_dir: Path) -> int:
    print(write_report(run_dir))
    return 0


def _tasks(run: Run) -> str:
    tasks = run.results.get("tasks", {})
    if not tasks:
        return ""
    alt = "Bars: how far each column of the table is on the way from chance to perfection"
    return task_table(tasks) + _chart(run, "tasks", gain_chart(tasks), alt, "wide")


def _forecast(run: Run) -> str:
    section = run.results.get("forecast")
    if not section:
        return ""
    alt = "Lines: error of predicted representations by how far ahead they lie"
    chart = _chart(run, "forecast", forecast_chart(section), alt, "wide")
    return f"<h2>How far ahead does it see?</h2>\n<p>{forecast_words(section)}</p>{chart}"


def _curves(run: Run) -> str:
    named = [name for name in CURVES if any(name in line for line in run.metrics)]
    if not named:
        return ""
    charts, streams = {}, [stream.name for stream in run.modality.streams]
    for name in named:
        title, meaning = CURVES[name]
        kind = "wide" if name == "loss" else ""
        drawn = _chart(run, name, curve(run.metrics, name, bool(kind), streams), f"{title} by step", kind)
        charts[name] = drawn.replace("</figure>", f"<figcaption>{meaning}</figcaption></figure>")
    words = (
        "The loss alone does not tell whether a representation is good: its targets move, and that of a collapsed "
        "encoder is near 0. Target std, RankMe and cosine tell whether inputs still differ in it."
    )
    loss = charts.pop("loss", "")
    return f'<h2>How training went</h2>\n<p>{words}</p>\n{loss}\n<div class="panels">{"".join(charts.values())}</div>'


def _pictures(run: Run) -> str:
    nothing = "<h2>What it learned</h2>\n<p>There are no pictures here: {}.</p>"
    try:
        shown = look(run.modality, shown_samples(run.modality), run.encoders, run.sample_limit)
    except DataError as error:
        return nothing.format(escape(str(error)))
    if not shown.pictures:
        return nothing.format("this modality has none, or no sample can be read")
    parts = []
    if shown.pictures[0].dim() == len(run.modality.grid) + 1:
        parts += [_masks(run, shown), _features(run, shown), _errors(run, shown)]
    else:
        axes = len(run.modality.grid)
        parts.append(
            f"<h2>What it learned</h2>\n<p>Masks and features are drawn on pictures of {axes} axes, as the grid has, "
            "and these have another number.</p>"
        )
    if len(shown.thumbnails) > 1:
        parts.append(f"<h2>Nearest neighbours</h2>\n<p>{_neighbour_words(shown)}</p>")
        parts.append(_gallery(run, "neighbours", neighbour_gallery(shown), 40))
    return "\n".join(filter(None, parts))


def _matches(run: Run) -> str:
    """What second streams find; empty where there is nothing to find, or to show."""
    try:
        found = find(run, shown_samples(run.modality))
    except DataError:
        return ""  # which the other pictures tell
    if found is None:
        return ""
    words = match_words(found, [stream.name for stream in run.modality.streams])
    return f"<h2>What it finds</h2>\n<p>{words}</p>\n" + _gallery(run, "matches", match_gallery(found), 30)


def _masks(run: Run, shown: Shown) -> str:
    words = (
        "The context encoder sees what is not hatched; from that, what the target encoder makes of each coloured block "
        "is predicted."
    )
    streams = [escape(stream.name) for stream in run.modality.streams]
    if streams:
        words += (
            f" Pictures show the {streams[0]} alone; how much of every stream is seen and predicted stands above them."
        )
    return f"<h2>What it had to predict</h2>\n<p>{words}</p>\n" + _gallery(
        run, "masks", mask_gallery(run.modality, shown), 40 if streams else 20
    )


def _features(run: Run, shown: Shown) -> str:
    words = (
        "The three strongest principal components of token features, less the mean of their input, as red, green and "
        "blue: where colours are alike, the encoder sees the same. Each encoder has colours of its own."
    )
    return f"<h2>Features as colours</h2>\n<p>{words}</p>\n" + _gallery(
        run, "features", feature_gallery(shown, run.modality.grid), 20
    )


def _errors(run: Run, shown: Shown) -> str:
    """Where predictions of what is to come are wrong; empty where nothing is to come."""
    forecaster = run.forecaster()
    if forecaster is None:
        return ""
    words = (
        "The first part of each input is seen; over the later one lie the errors of the predicted representations, "
        "dark where they are small and bright where they are large, on one scale."
    )
    return f"<h2>Where the future surprises it</h2>\n<p>{words}</p>\n" + _gallery(
        run, "errors", error_gallery(shown, forecaster, run.modality.grid), 24
    )


def _neighbour_words(shown: Shown) -> str:
    words = (
        f"Queries drawn at random, and those of {len(shown.thumbnails):,} pictures whose features are nearest: mean "
        "over tokens, less the mean over pictures, by cosine."
    )
    shares = same_class(shown)
    if not shares:
        return words
    found = ", ".join(f"{percent(share, 1)} {name}" for name, share in shares.items())
    return f'{words} <span class="key">Outlined</span> are those of the query\'s class, over all queries {found}.'


def _chart(run: Run, name: str, figure: Figure, alt: str, kind: str) -> str:
    save_png(figure, run.run_dir / "figures" / f"{name}.png")
    return f'<figure class="chart {kind}"><div role="img" aria-label="{alt}">{to_svg(figure, name)}</div></figure>'


def _gallery(run: Run, name: str, cards: Sequence[Card], width: int) -> str:
    """Cards of a least width, in rem."""
    mosaic(cards).save(run.run_dir / "figures" / f"{name}.png")
    drawn = "\n".join(f'<div class="card">{"".join(map(_strip, card))}</div>' for card in cards)
    return f'<div class="cards" style="--card:{width}rem">\n{drawn}\n</div>'


def _strip(strip: Strip) -> str:
    title = f"<span>{escape(strip.title)}</span>" if strip.title else ""
    pictures = "".join(
        f"<figure{' class=same' if picture.marked else ''}>{_image(picture)}"
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        for picture in strip.pictures
    )
    return f'<div class="strip" style="--n:{len(strip.pictures)}">{title}<div>{pictures}</div></div>'


def _image(picture: Picture) -> str:
    image = f'<img alt="{escape(picture.alt)}" src="{picture.source()}">'
    if not picture.moving:
        return image
    still = f'<source media="(prefers-reduced-motion: reduce)" srcset="{picture.still()}">'
    return f"<picture>{still}{image}</picture>"
