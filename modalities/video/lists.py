"""Videos listed in text files: a path and optionally a label per line."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jepa.data.summary import SplitSummary, digest
from jepa.modality import Label, Sample, Split
from modalities.storage.labels import NO_CLASSES, UNLABELLED, Classes, classes_of
from modalities.storage.opened import Opened
from modalities.storage.packed import PackedStrings
from modalities.storage.paths import FileKeys, existing_file, one_spelling
from modalities.storage.splits import StoredSplit, carved_split, files_by_split, named_files, split_source
from modalities.storage.tables import DELIMITERS, is_unicode, split_row
from modalities.video.list_splits import VideoList, by_column, check_apart, label_notes

_LISTS = {".csv", ".tsv"}
_DELIMITERS = "\t;,"
_PATH_NAMES = ("path", "video_path", "file", "filename", "file_name", "filepath", "video", "clip")
_LABEL_NAMES = ("label", "class", "label_name", "class_name", "category", "target", "action")


class ListSamples:
    """Samples read from listed paths; `labels` has the class of each, or UNLABELLED."""

    def __init__(
        self,
        folder: Path,
        paths: PackedStrings,
        labels: Sequence[int],
        read: Callable[[Path], Any],
        summary: SplitSummary | None = None,
    ) -> None:
        self.folder, self.paths, self.read, self.summary = folder, paths, read, summary
        self.labels = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        inputs = self.read(existing_file(self.folder, self.paths[index]))
        return Sample(inputs, self.labels_of(index))

    def digest(self) -> str:
        """A digest of the paths, their order and their labels."""
        return digest(*self.paths.buffers(), self.labels.tobytes())

    def labels_of(self, index: int) -> dict[str, Label]:
        """The labels of a sample, without reading it."""
        label = int(self.labels[index])
        return {} if label == UNLABELLED else {"class": label}


def open_lists(
    root: Path,
    split: Split,
    extensions: Collection[str],
    read: Callable[[Path], Any],
    seed: int | None,
    reads_labels: bool = True,
    opened: Opened | None = None,
) -> StoredSplit:
    """The videos of one split listed in the .csv or .tsv files at `root`, and the class names, () if unlabelled.

    `root` is a folder with one file or with several named after splits (train.csv, val.csv, test.csv); or a file, and
    then those beside it that differ in the word for the split alone are the other splits. Missing splits are carved
    (storage.splits). Two splits must not share videos.
    A line is `path label` or a path alone, separated by a tab, semicolon, comma or space. A path with spaces is quoted;
    otherwise the last space separates. A first line without a video is a header; with more than two columns it is
    required and must name a `path` and a `label` (storage.labels). A column `split` takes precedence over the name of
    the file (video.list_splits). Paths are absolute or relative to the file's folder.
    reads_labels: false ignores the labels.
    """
    stored, notes = (opened or Opened()).once(("lists", root), lambda: _read_all(root, extensions, reads_labels))
    source, carve = split_source(list(stored), split)
    classes = _classes(stored["train"]) if reads_labels else NO_CLASSES
    folder = stored[source][0].source.parent
    rows = one_spelling([row for listed in stored[source] for row in _rows(listed, classes)], FileKeys(folder))
    splits = [carved_split(path, carve, seed) for path, _ in rows] if carve else []
    if carve and (split != "train" or classes.names):
        rows = [row for row, each in zip(rows, splits, strict=True) if each == split]
    sizes = {each: splits.count(each) for each in carve if classes.names}
    paths = PackedStrings(path for path, _ in rows)
    where = f"listed in {', '.join(str(listed.source) for listed in stored[source])}"
    summary = SplitSummary("videos", where, classes.names, notes=notes).of_split(split, carve, sizes)
    return StoredSplit(ListSamples(folder, paths, [label for _, label in rows], read, summary), classes.names)


def _read_all(
    root: Path, extensions: Collection[str], reads_labels: bool
) -> tuple[dict[Split, list[VideoList]], tuple[str, ...]]:
    """The lists of all splits, and notes on them."""
    files = {part: [read_list(path, extensions) for path in paths] for part, paths in _stored_lists(root).items()}
    stored = by_column(files)
    file_key = FileKeys(stored["train"][0].source.parent)
    return stored, check_apart(stored, file_key) + (label_notes(stored, file_key) if reads_labels else ())


def read_list(source: Path, extensions: Collection[str]) -> VideoList:
    """The paths and labels of one file; raises ValueError with the line of a mistake."""
    try:
        lines = source.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise OSError(f"{source}: {error.strerror}") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if "\0" in lines[0]:
        raise ValueError(f"{source}, line 1: not UTF-8")
    delimiter, rows = _table([line for _, line in numbered], extensions)
    has_header = bool(rows) and not any(ending in cell.lower() for cell in rows[0] for ending in extensions)
    if len(rows) == has_header:
        raise ValueError(f"{source} lists no videos; a line is a path, or a path and a label")
    video_columns = [column for column, cell in enumerate(rows[has_header]) if _is_video(cell, extensions)]
    path_column, label_column, split_column = _columns(source, rows, has_header, video_columns)
    paths, labels, splits = [], [], []
    for (number, line), row in zip(numbered[has_header:], rows[has_header:], strict=True):
        if fault := _fault(row, len(rows[0]), (path_column, label_column), delimiter, extensions):
            raise ValueError(f"{source}, line {number}: '{line[:80]}' {fault} ({_separated(delimiter, numbered)})")
        paths.append(row[path_column].strip())
        labels += [row[label_column].strip()] if label_column is not None else []
        splits += [row[split_column].strip()] if split_column is not None else []
    return VideoList(source, PackedStrings(paths), PackedStrings(labels), PackedStrings(splits))


def _fault(
    row: list[str], count: int, columns: tuple[int, int | None], delimiter: str, extensions: Collection[str]
) -> str:
    """What is wrong with a row, given the columns of its path and label; "" if nothing is."""
    path_column, label_column = columns
    if len(row) != count:
        return f"has {len(row)} fields, the first {count}"
    if not _is_video(row[path_column], extensions):
        return "is not a video path, such as a.mp4"
    if label_column is not None and not is_unicode(row[label_column]):
        return "has a label that is not UTF-8"
    opened = delimiter in ",;" and any(cell.lstrip()[:1] == '"' and cell.count('"') % 2 for cell in row)
    return "has an unclosed quote" if opened else ""


def _separated(delimiter: str, numbered: Sequence[tuple[int, str]]) -> str:
    """By what the fields are separated, and for spaces, which line rules out another delimiter."""
    if delimiter != " ":
        return f"separated by {DELIMITERS[delimiter]}"
    for other in _DELIMITERS:
        counts = [len(split_row(line, other)) for _, line in numbered]
        if odd := [(line, count) for (line, _), count in zip(numbered, counts, strict=True) if count != counts[0] > 1]:
            (line, count), (first, _) = odd[0], numbered[0]
            return f"with {DELIMITERS[other]}, line {first} has {counts[0]} fields and line {line} has {count}"
    return "separated by spaces"


def _stored_lists(root: Path) -> dict[Split, list[Path]]:
    if not root.exists():
        raise FileNotFoundError(f"data root {root} does not exist")
    if root.is_dir():
        found = sorted(path for path in root.iterdir() if path.suffix.lower() in _LISTS and path.name[0] != ".")
        if not found:
            raise FileNotFoundError(f"no .csv or .tsv file in {root}")
        stored = files_by_split(found, str(root))
        if len(found) > 1 and stored == {"train": found}:
            names = ", ".join(path.name for path in found[:5])
            raise ValueError(f"{root} holds {names}; several files must be named after splits")
        return stored
    return named_files(root)


def _table(lines: list[str], extensions: Collection[str]) -> tuple[str, list[list[str]]]:
    """The first delimiter that gives all lines the same number (>= 2) of cells, or a space; and rows of cells."""
    for delimiter in _DELIMITERS:
        count = len(split_row(lines[0], delimiter)) if lines else 1
        split = (split_row(line, delimiter) if '"' in line else line.split(delimiter) for line in lines)
        rows = list(split) if count > 1 else []
        if rows and all(len(row) == count for row in rows):
            return delimiter, rows
    return " ", [_by_space(line.strip(), extensions) for line in lines]


def _by_space(line: str, extensions: Collection[str]) -> list[str]:
    if line[0] in "\"'":
        path, _, rest = line[1:].partition(line[0])
        return [path, rest.strip()] if rest.strip() else [path]
    path, _, label = line.rpartition(" ")
    return [path.strip(), label] if path and not _is_video(label, extensions) else [line]


def _is_video(cell: str, extensions: Collection[str]) -> bool:
    name = cell.strip().lower()
    return name[name.rfind(".") :] in extensions


def _columns(
    source: Path, rows: list[list[str]], has_header: bool, videos: list[int]
) -> tuple[int, int | None, int | None]:
    """Columns of path, label and split, from the header or, with two columns, from which one holds a video."""
    names = [name.strip().lower() for name in rows[0]] if has_header else []
    path, label, split = (
        next((names.index(name) for name in known if name in names), None)
        for known in (_PATH_NAMES, _LABEL_NAMES, ("split",))
    )
    count = len(rows[0])
    if path is not None and (label is not None or count == 1 + (split is not None)):
        return path, label, split
    if count > 2:
        raise ValueError(f"{source} has {count} columns: the first line must name the columns `path` and `label`")
    path = videos[0] if videos else 0
    return path, 1 - path if count == 2 else None, None


def _classes(training: list[VideoList]) -> Classes:
    try:
        return classes_of(label for listed in training for label in listed.labels)
    except ValueError as error:
        raise ValueError(f"{training[0].source}: {error}") from error


def _rows(listed: VideoList, classes: Classes) -> list[tuple[str, int]]:
    """Paths with their classes."""
    if not classes.names:
        return [(path, UNLABELLED) for path in listed.paths]
    if not len(listed.labels):
        raise ValueError(f"{listed.source} has no labels, unlike the training set")
    try:
        numbers = {label: classes.number(label) for label in set(listed.labels)}
    except ValueError as error:
        raise ValueError(f"{listed.source}: {error}") from error
    return [(path, numbers[label]) for path, label in zip(listed.paths, listed.labels, strict=True)]
