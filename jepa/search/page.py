"""The page of a search: each query and thumbnails of its neighbours, in one file that opens offline."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from torch import Tensor

from jepa.report.cards import Picture, Strip
from jepa.report.html import cards_html, write_page
from jepa.report.overlays import resize
from jepa.search.queries import Query
from jepa.search.table import Neighbour, cells, label_of, place_of

_SIDE, _FRAMES = 160, 8  # of a thumbnail: pixels of the longer side, frames of a moving one


def write_neighbours(
    path: Path,
    title: str,
    words: Sequence[str],
    found: Sequence[tuple[Query, Tensor | None, Sequence[Neighbour]]],
    pictures: Mapping[int, Tensor],
) -> Path:
    """Write the page -> its path.

    words: paragraphs of text above. found: for each query its picture, if any, and its neighbours, best first.
    pictures: of the neighbours, by row, as far as there are any.
    """
    parts = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(text)}</p>" for text in words)]
    for query, picture, neighbours in found:
        parts.append(f"<h2>{escape(_heading(query))}</h2>")
        parts.append(_gallery(picture, neighbours, pictures) + _table(neighbours))
    return write_page(path, title, parts)


def _heading(query: Query) -> str:
    return f"“{query.text}”" if query.kind == "sentence" else query.text


def _gallery(query: Tensor | None, neighbours: Sequence[Neighbour], pictures: Mapping[int, Tensor]) -> str:
    card = [] if query is None else [Strip("query", [Picture(resize(query, _SIDE, _FRAMES), "", "query")])]
    shown = [
        Picture(resize(pictures[one.row], _SIDE, _FRAMES), _caption(one), place_of(one.facts))
        for one in neighbours
        if one.row in pictures
    ]
    card += [Strip("nearest", shown)] if shown else []
    return cards_html([card], 40) if card else ""


def _caption(one: Neighbour) -> str:
    label, name = label_of(one.facts), Path(place_of(one.facts)).name
    return ", ".join(filter(None, (f"{one.rank}: {one.similarity:+.3f}", label, name)))


def _table(neighbours: Sequence[Neighbour]) -> str:
    heads, rows = cells(neighbours)
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "\n".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f'<details><summary>As a table</summary><div class="scroll">{table}</div></details>'
