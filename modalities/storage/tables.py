"""Rows of text tables: delimiters, quotes, line breaks."""

import csv
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple, TextIO

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "pipes"}


class BadRow(NamedTuple):
    """Why a line is not a row."""

    reason: str


def find_delimiter(header: str, is_header: Callable[[list[str]], bool]) -> str:
    """The delimiter that makes a header of this line; if none does, the one that gives most fields."""
    usable = (delimiter for delimiter in DELIMITERS if is_header(split_row(header, delimiter)))
    return next(usable, max(DELIMITERS, key=header.count))


def split_row(line: str, delimiter: str) -> list[str]:
    """The fields of one line. Quotes that do not enclose a whole field are text."""
    if '"' not in line:
        return line.split(delimiter)
    return [quoted.replace('""', '"') if quoted else plain for quoted, plain in _pattern(delimiter).findall(line)]


def is_unicode(text: str) -> bool:
    """Whether a text is free of escaped bytes, i.e. was valid UTF-8."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def table_rows(
    file: TextIO, start: int, delimiter: str, columns: int, endings: tuple[str, ...]
) -> Iterator[tuple[int, list[str] | BadRow]]:
    """The rows of a table from line `start` on, at which `file` is, with the numbers of their first lines.

    A quoted field may hold line breaks, unless it then holds another row: a line with a delimiter and a file name with
    one of `endings`. In that case, and if the quote is never closed, the quote is text in a table with tabs, which
    needs no quotes. With other delimiters, all lines inside the quotes are bad rows.
    """
    lines: list[str] = []  # of the current row

    def consumed() -> Iterator[str]:
        for line in file:
            lines.append(line)
            yield line
        lines.append("")  # the quote is still open at the end of the file

    reader = csv.reader(consumed(), delimiter=delimiter, strict=delimiter == "\t")
    while True:
        number, fault = start + reader.line_num, ""
        lines.clear()
        try:
            row = next(reader, None)
        except csv.Error as error:
            row, fault = [], str(error)
        if row is None:
            return
        if len(lines) > 1 and not fault:
            merged = _merges(row, delimiter, columns, endings)
            fault = "unclosed quote" if not lines[-1] else "a misplaced quote encloses several lines" if merged else ""
        if fault:
            numbered = [(each, line.rstrip("\r\n")) for each, line in enumerate(lines, number) if line]
            bad = BadRow(f"not a table row: {fault}")
            yield from ((each, split_row(line, "\t") if delimiter == "\t" else bad) for each, line in numbered)
        elif len(row) > 1 or "".join(row).strip():
            yield number, row


def _merges(row: list[str], delimiter: str, columns: int, endings: tuple[str, ...]) -> bool:
    """Whether a row of several lines holds another row; if its own file has no known ending, any delimiter tells."""
    if not any(cell.lower().endswith(endings) for cell in row):
        endings = ("",)
    inside = [line.split(delimiter) for cell in row if "\n" in cell or "\r" in cell for line in cell.splitlines()]
    return len(row) != columns or any(
        len(cells) > 1 and any(cell.strip(' "').lower().endswith(endings) for cell in cells) for cells in inside
    )


@lru_cache
def _pattern(delimiter: str) -> re.Pattern[str]:
    """A field: in quotes, or plain."""
    cell = re.escape(delimiter)
    return re.compile(rf'(?:^|{cell})(?: *"((?:[^"]|"")*)" *(?={cell}|\Z)|([^{cell}]*))')
