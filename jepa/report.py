"""A run directory -> report.html: how good the encoder is, how training went, what was learned, how to repeat it."""

import argparse
import os
import sys
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from jepa.command import exit_status
from jepa.data import DataError
from jepa.report_figures import CURVES, curve, gain_chart, percent, save_png, to_svg
from jepa.report_pictures import (
    Card,
    Shown,
    Strip,
    feature_gallery,
    look,
    mask_gallery,
    mosaic,
    neighbour_gallery,
    same_class,
)
from jepa.report_run import Run, read_run, shown_samples
from jepa.report_words import heading, notices, reproduction, task_table


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m jepa.report RUN_DIR` -> exit status."""
    parser = argparse.ArgumentParser(prog="jepa report", description="Write report.html and figures/ of a run.")
    parser.add_argument("run_dir", type=Path, help="run directory")
    return exit_status(lambda: _show(parser.parse_args(argv).run_dir))


def write_report(run_dir: Path) -> Path:
    """Write report.html, a single file that opens offline, and its figures as PNG -> path of the report.

    Raises CheckpointError where there is no checkpoint.
    """
    run = read_run(run_dir)
    (run_dir / "figures").mkdir(exist_ok=True)
    parts = [heading(run), notices(run), _tasks(run), _curves(run), _pictures(run), reproduction(run)]
    template = Template((files("jepa") / "report_template.html").read_text(encoding="utf-8"))
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


def _curves(run: Run) -> str:
    named = [name for name in CURVES if any(name in line for line in run.metrics)]
    if not named:
        return ""
    charts = {}
    for name in named:
        title, meaning = CURVES[name]
        kind = "wide" if name == "loss" else ""
        drawn = _chart(run, name, curve(run.metrics, name, wide=bool(kind)), f"{title} by step", kind)
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
    if len(run.modality.grid) == 2:
        parts.append(
            "<h2>What it had to predict</h2>\n<p>The context encoder sees what is not hatched; from that, what the "
            "target encoder makes of each coloured block is predicted.</p>"
        )
        parts.append(_gallery(run, "masks", mask_gallery(run.modality, shown), 20))
        parts.append(
            "<h2>Features as colours</h2>\n<p>The three strongest principal components of token features, less the "
            "mean of their input, as red, green and blue: where colours are alike, the encoder sees the same. Each "
            "encoder has colours of its own.</p>"
        )
        parts.append(_gallery(run, "features", feature_gallery(shown, run.modality.grid), 20))
    else:
        axes = len(run.modality.grid)
        parts.append(
            f"<h2>What it learned</h2>\n<p>Masks and features are drawn on grids of 2 axes, not of {axes}.</p>"
        )
    if len(shown.pictures) > 1:
        parts.append(f"<h2>Nearest neighbours</h2>\n<p>{_neighbour_words(shown)}</p>")
        parts.append(_gallery(run, "neighbours", neighbour_gallery(shown), 40))
    return "\n".join(parts)


def _neighbour_words(shown: Shown) -> str:
    words = (
        f"Queries drawn at random, and those of {len(shown.pictures):,} pictures whose features are nearest: mean over "
        "tokens, less the mean over pictures, by cosine."
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
        f'<figure{" class=same" if picture.marked else ""}><img alt="{escape(picture.alt)}" src="{picture.png()}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        for picture in strip.pictures
    )
    return f'<div class="strip" style="--n:{len(strip.pictures)}">{title}<div>{pictures}</div></div>'


if __name__ == "__main__":
    sys.exit(main())
