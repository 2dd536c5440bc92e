"""A comparison as a page that opens offline."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from jepa.compare.run import Comparison
from jepa.evaluate.table import caveat_lines
from jepa.report.charts import save_png, task_chart, to_svg
from jepa.report.html import write_page
from jepa.report.text import rows_table


def write_comparison(comparison: Comparison, describe: Callable[[dict[str, Any]], str]) -> Path:
    """Write compare.html, and its chart as PNG -> path of the page. describe: a source in words, from its results."""
    names, tasks = list(comparison.results), comparison.tasks
    title = f"Comparison of {', '.join(names)}"
    words = (
        "Probes on frozen features, on the same samples and under one protocol; each encoder has its own resolution "
        "and pixel statistics. Features are the mean of the patch tokens; rows named own pooling use the vector that a "
        "model itself gives, such as its class token. The best score of a row is bold; ↑ means higher is better, ↓ "
        "lower is better; ± gives the standard deviation over draws of the labelled samples."
    )
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(words)}</p>']
    parts += [f'<div class="box note"><strong>Note</strong>{escape(note)}</div>' for note in comparison.notes()]
    if tasks:
        headings = {name: name for name in names} | {"chance": "chance"}
        figure = task_chart(tasks)
        save_png(figure, comparison.folder / "compare.png")
        alt = "Bars: the score of each source between chance and perfect"
        chart = f'<div role="img" aria-label="{alt}">{to_svg(figure, "compare")}</div>'
        parts += ["<h2>Scores</h2>", rows_table(tasks, headings), f'<figure class="chart wide">{chart}</figure>']
        parts += [f"<p>{escape(line)}</p>" for line in caveat_lines(tasks)]
    lines = [f"<dt>{escape(name)}</dt><dd>{escape(describe(one))}</dd>" for name, one in comparison.results.items()]
    parts += [f"<h2>The encoders</h2>\n<dl>{''.join(lines)}</dl>"]
    return write_page(comparison.folder / "compare.html", title, parts)
