"""The neighbours of a query as a table: rank, similarity, label and name."""

from collections.abc import Sequence
from typing import NamedTuple

from jepa.console import shown
from jepa.search.stored import Facts


class Neighbour(NamedTuple):
    """A row that is near to a query; rank: from 1; similarity: cosine."""

    rank: int
    similarity: float
    row: int
    facts: Facts


def place_of(facts: Facts) -> str:
    """The name of a row, and the seconds of its window, if it is one."""
    if facts.get("start") in (None, ""):
        return str(facts["name"])
    return f"{facts['name']} at {float(facts['start']):.1f} to {float(facts['end']):.1f} s"


def label_of(facts: Facts) -> str:
    """The label of a row; empty if it is unknown."""
    label = facts.get("label")
    return "" if label is None else str(label)


def cells(neighbours: Sequence[Neighbour]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells; columns without any value are left out."""
    columns = {
        "rank": [str(one.rank) for one in neighbours],
        "cosine": [f"{one.similarity:+.3f}" for one in neighbours],
        "label": [label_of(one.facts) for one in neighbours],
        "name": [place_of(one.facts) for one in neighbours],
        "text": [str(one.facts.get("text") or "") for one in neighbours],
    }
    used = {head: values for head, values in columns.items() if any(values)}
    return list(used), [list(row) for row in zip(*used.values(), strict=True)]


def lines(neighbours: Sequence[Neighbour]) -> list[str]:
    """The table for the terminal."""
    heads, rows = cells(neighbours)
    table = [heads, *([shown(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
