"""Reading a list of videos: which column is what, and every row as it is streamed from the file."""

from array import array
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from modalities.storage.packed import StringPacker
from modalities.storage.tables import DELIMITERS, is_unicode, split_row
from modalities.video.list_splits import NO_WORDS, VideoList, Words

_DELIMITERS = "\t;,"
_PATH_NAMES = ("path", "video_path", "file", "filename", "file_name", "filepath", "video", "clip")
_LABEL_NAMES = ("label", "class", "label_name", "class_name", "category", "target", "action")
_AT_ONCE = 2**9  # lines that are Python objects at a time: few enough for the garbage collector to stay idle

Lines = tuple[Sequence[int], list[str]]  # numbers and texts of lines that are not blank


def read_list(source: Path, extensions: Collection[str]) -> VideoList:
    """The paths and labels of one file; raises ValueError with the line of a mistake."""
    videos = _Endings(extensions)
    try:
        first = next(iter(_batches(source)), ((), []))
        delimiters = [each for each in _DELIMITERS if first[1] and len(split_row(first[1][0], each)) > 1]
        for delimiter in (*delimiters, " "):
            if (found := _read(source, delimiter, videos)) is not None:
                return found
    except OSError as error:
        raise OSError(f"{source}: {error.strerror}") from error
    raise AssertionError("any file is separated by spaces")


def _read(source: Path, delimiter: str, videos: "_Endings") -> VideoList | None:
    """The list, if the file is a table with this delimiter: all lines have as many cells; any file is one of spaces."""
    reader: _Reader | None = None
    for numbers, lines in _batches(source):
        rows = _split(lines, delimiter, videos)
        reader = reader or _Reader(source, delimiter, videos, rows[0])
        if delimiter != " " and any(len(row) != reader.count for row in rows):
            return None
        reader.add(numbers, lines, rows)
    if reader is None or not reader.has_rows:
        raise ValueError(f"{source} lists no videos; a line is a path, or a path and a label")
    if reader.error:
        raise ValueError(reader.error + (f" ({_separated(delimiter, source)})" if reader.of_line else ""))
    return reader.found()


def _batches(source: Path) -> Iterator[Lines]:
    """The lines of a file, a batch at a time."""
    number = 1
    with source.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        while lines := [line.removesuffix("\n") for line in islice(file, _AT_ONCE)]:
            if number == 1 and "\0" in lines[0]:
                raise ValueError(f"{source}, line 1: not UTF-8")
            kept: Sequence[int] = range(number, number + len(lines))
            number += len(lines)
            if not all(map(str.strip, lines)):
                kept = [each for each, line in zip(kept, lines, strict=True) if line.strip()]
                lines = [line for line in lines if line.strip()]
            if lines:
                yield kept, lines


class _Endings(dict[str, bool]):
    """Whether a file ending, as written, is that of a video."""

    def __init__(self, extensions: Collection[str]) -> None:
        super().__init__()
        self.extensions = extensions

    def __missing__(self, ending: str) -> bool:
        found = self[ending] = ending.lower() in self.extensions
        return found

    def has(self, cell: str) -> bool:
        """Whether a cell is the path of a video."""
        name = cell.strip()
        return self[name[name.rfind(".") :]]


def _split(lines: list[str], delimiter: str, videos: _Endings) -> list[list[str]]:
    """The cells of lines."""
    if delimiter == " ":
        lines = [line.strip() for line in lines]
        rows = [line.rsplit(" ", 1) for line in lines]
        plain = {line[0] for line in lines}.isdisjoint("\"'") and not any(
            "." in word for word in {row[-1] for row in rows}
        )
        return rows if plain else [_by_space(line, videos) for line in lines]
    return [split_row(line, delimiter) if '"' in line else line.split(delimiter) for line in lines]


def _by_space(line: str, videos: _Endings) -> list[str]:
    if line[0] in "\"'":
        path, _, rest = line[1:].partition(line[0])
        return [path, rest.strip()] if rest.strip() else [path]
    cells = line.rsplit(" ", 1)
    return [line] if videos.has(cells[-1]) else cells


class _Column:
    """A column of words of which few differ."""

    def __init__(self) -> None:
        self.codes, self.known = array("i"), dict[str, int]()

    def add(self, cells: Sequence[str]) -> None:
        known = self.known
        self.codes.extend([known.setdefault(cell.strip(), len(known)) for cell in cells])

    def words(self) -> Words:
        return Words(tuple(self.known), np.frombuffer(self.codes, np.int32), in_order=True) if self.codes else NO_WORDS


class _Reader:
    """Collects the rows of a list. After an error, which another delimiter may explain, rows are no more kept."""

    def __init__(self, source: Path, delimiter: str, videos: _Endings, first: list[str]) -> None:
        self.source, self.delimiter, self.videos, self.first = source, delimiter, videos, first
        self.count = len(first)
        self.skipped = self.has_header = not any(each in cell.lower() for cell in first for each in videos.extensions)
        self.has_rows, self.error, self.of_line = False, "", False
        self.paths, self.labels, self.splits = StringPacker(), _Column(), _Column()
        self.path = 0
        self.label: int | None = None
        self.split: int | None = None

    def add(self, numbers: Sequence[int], lines: list[str], rows: list[list[str]]) -> None:
        """Add the rows of a batch."""
        if self.skipped:
            numbers, lines, rows, self.skipped = numbers[1:], lines[1:], rows[1:], False
        if self.error or not rows:
            return
        if not self.has_rows:
            self._choose_columns(rows[0])
        self.has_rows = True
        if not self.error and not self._is_plain(lines, rows):
            self._look_for_error(numbers, lines, rows)
        if self.error:
            return
        columns = list(zip(*rows, strict=True))
        self.paths.extend([cell.strip() for cell in columns[self.path]])
        if self.label is not None:
            self.labels.add(columns[self.label])
        if self.split is not None:
            self.splits.add(columns[self.split])

    def found(self) -> VideoList:
        """The list of all rows."""
        return VideoList(self.source, self.paths.packed(), self.labels.words(), self.splits.words())

    def _choose_columns(self, row: list[str]) -> None:
        with_video = [column for column, cell in enumerate(row) if self.videos.has(cell)]
        try:
            self.path, self.label, self.split = _columns(self.source, self.first, self.has_header, with_video)
        except ValueError as error:
            self.error = str(error)

    def _is_plain(self, lines: list[str], rows: list[list[str]]) -> bool:
        """Whether no row of a batch can be wrong, found faster than row by row."""
        if set(map(len, rows)) != {self.count} or (self.delimiter in ",;" and any('"' in each for each in lines)):
            return False
        label, paths = self.label, [row[self.path].strip() for row in rows]
        endings = {path[path.rfind(".") :] for path in paths}
        return all(self.videos[each] for each in endings) and (
            label is None or is_unicode("".join([row[label] for row in rows]))
        )

    def _look_for_error(self, numbers: Sequence[int], lines: list[str], rows: list[list[str]]) -> None:
        for number, line, row in zip(numbers, lines, rows, strict=True):
            if fault := self._fault(row):
                self.error, self.of_line = f"{self.source}, line {number}: '{line[:80]}' {fault}", True
                return

    def _fault(self, row: list[str]) -> str:
        """What is wrong with a row; "" if nothing is."""
        if len(row) != self.count:
            return f"has {len(row)} fields, the first {self.count}"
        if not self.videos.has(row[self.path]):
            return "is not a video path, such as a.mp4"
        if self.label is not None and not is_unicode(row[self.label]):
            return "has a label that is not UTF-8"
        opened = self.delimiter in ",;" and any(cell.lstrip()[:1] == '"' and cell.count('"') % 2 for cell in row)
        return "has an unclosed quote" if opened else ""


def _separated(delimiter: str, source: Path) -> str:
    """By what the fields are separated, and for spaces, which line rules out another delimiter."""
    if delimiter != " ":
        return f"separated by {DELIMITERS[delimiter]}"
    for other in _DELIMITERS:
        first = count = 0
        for numbers, lines in _batches(source):
            for number, line in zip(numbers, lines, strict=True):
                cells = len(split_row(line, other))
                first, count = first or number, count or cells
                if cells != count > 1:
                    odd = f"line {first} has {count} fields and line {number} has {cells}"
                    return f"with {DELIMITERS[other]}, {odd}"
    return "separated by spaces"


def _columns(source: Path, first: list[str], has_header: bool, videos: list[int]) -> tuple[int, int | None, int | None]:
    """Columns of path, label and split, from the header or, with two columns, from which one holds a video."""
    names = [name.strip().lower() for name in first] if has_header else []
    path, label, split = (
        next((names.index(name) for name in known if name in names), None)
        for known in (_PATH_NAMES, _LABEL_NAMES, ("split",))
    )
    count = len(first)
    if path is not None and (label is not None or count == 1 + (split is not None)):
        return path, label, split
    if count > 2:
        raise ValueError(f"{source} has {count} columns: the first line must name the columns `path` and `label`")
    path = videos[0] if videos else 0
    return path, 1 - path if count == 2 else None, None
