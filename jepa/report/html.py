"""Pages that open offline: the template, and cards of pictures as HTML."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from jepa.console import shown
from jepa.disk import write_text, writing
from jepa.report.cards import Card, Picture, Strip


def write_page(path: Path, title: str, parts: Sequence[str]) -> Path:
    """Write a page with a title and parts in HTML -> its path."""
    template = Template((files("jepa.report") / "template.html").read_text(encoding="utf-8"))
    text = template.substitute(title=escape(title), body="\n".join(parts))
    text = "\n".join(map(shown, text.split("\n")))  # names of files and classes may hold control characters
    with writing(path):
        write_text(path, text, path.with_name(f"{path.name}.partial"))
    return path


def cards_html(cards: Sequence[Card], width: int) -> str:
    """The cards of a gallery; width: least width of a card in rem."""
    drawn = "\n".join(f'<div class="card">{"".join(map(_strip, card))}</div>' for card in cards)
    return f'<div class="cards" style="--card:{width}rem">\n{drawn}\n</div>'


def _strip(strip: Strip) -> str:
    title = f"<span>{escape(strip.title)}</span>" if strip.title else ""
    pictures = "".join(
        f"<figure{' class=same' if picture.outlined else ''}>{_image(picture)}"
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        for picture in strip.pictures
    )
    return f'<div class="strip" style="--n:{len(strip.pictures)}">{title}<div>{pictures}</div></div>'


def _image(picture: Picture) -> str:
    image = f'<img alt="{escape(picture.alt)}" src="{picture.data_uri()}">'
    if not picture.moving:
        return image
    still = f'<source media="(prefers-reduced-motion: reduce)" srcset="{picture.still_uri()}">'
    return f"<picture>{still}{image}</picture>"
