"""Videos that are listed in text files: a path and, where it is known, a label on each line."""

import csv
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from jepa.modality import Sample, Samples, Split
from modalities.storage.packed import PackedStrings
from modalities.storage.splits import carved_split, files_by_split, split_source, split_word

_LISTS = {".csv", ".tsv"}
_PATH_NAMES = ("path", "video_path", "file", "filename", "file_name", "filepath", "video", "clip")
_LABEL_NAMES = ("label", "class", "label_name", "class_name", "category", "target", "action")


@dataclass(frozen=True)
class ListedVideos:
    """What the lines of one file say: paths as they are written, and labels as they are written, or none at all."""

    source: Path
    paths: PackedStrings
    labels: PackedStrings  # as many as paths, or none


class ListSamples:
    """What `read` makes of the listed paths; `labels` holds a class for each, or nothing."""

    def __init__(self, folder: Path, paths: Sequence[str], labels: Sequence[int], read: Callable[[Path], Any]) -> None:
        self.folder, self.paths, self.read = folder, paths, read
        self.labels = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        inputs = self.read(self.folder / self.paths[index])
        return Sample(inputs, {"class": int(self.labels[index])} if len(self.labels) else {})


def open_lists(
    root: Path, split: Split, extensions: Collection[str], read: Callable[[Path], Any], seed: int
) -> tuple[Samples, tuple[str, ...]]:
    """The videos of one split that the .csv or .tsv files at `root` list, and their classes, () where unlabelled.

    `root` is a file, or a folder that holds one, or several whose names say the split (train.csv, val.csv, test.csv); a
    file so named is read with those beside it. What is not stored is carved from the training set (image_splits).
    A line is `path label`, or a path alone, between them a tab, semicolon, comma or space; quotes keep a path with
    spaces together, the last space separates otherwise. A first line that names no video is a header; of more columns
    than two, it must name one `path` and one `label`. Labels that are all whole numbers are the classes; others are
    names, which are sorted. Paths are absolute, or relative to the file's folder.
    """
    stored = {part: [read_list(path, extensions) for path in paths] for part, paths in _stored_lists(root).items()}
    source, carve = split_source(list(stored), split)
    classes = _classes(stored["train"])
    rows = [row for listed in stored[source] for row in _rows(listed, classes)]
    if carve and not (split == "train" and not classes):
        rows = [row for row in rows if carved_split(row[0], carve, seed) == split]
    folder = stored[source][0].source.parent
    paths = PackedStrings(path for path, _ in rows)
    return ListSamples(folder, paths, [label for _, label in rows if classes], read), classes


def read_list(source: Path, extensions: Collection[str]) -> ListedVideos:
    """The paths and labels of one file; ValueError names the line that is not understood."""
    try:
        lines = source.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise OSError(f"{source}: {error.strerror}") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    rows = _table([line for _, line in numbered], extensions)
    has_header = bool(rows) and not any(ending in cell.lower() for cell in rows[0] for ending in extensions)
    if len(rows) == has_header:
        raise ValueError(f"{source} lists no videos; a line is a path, or a path and a label")
    of_first = [place for place, cell in enumerate(rows[has_header]) if _is_video(cell, extensions)]
    path_column, label_column = _columns(source, rows, has_header, of_first)
    paths, labels = [], []
    for (number, line), row in zip(numbered[has_header:], rows[has_header:], strict=True):
        if len(row) != len(rows[0]):
            raise ValueError(f"{source}, line {number}: '{line[:80]}' has {len(row)} fields, the first {len(rows[0])}")
        if not _is_video(row[path_column], extensions):
            raise ValueError(f"{source}, line {number}: '{line[:80]}' names no video; paths end in .mp4 or the like")
        paths.append(row[path_column].strip())
        labels += [row[label_column].strip()] if label_column is not None else []
    return ListedVideos(source, PackedStrings(paths), PackedStrings(labels))


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
            raise ValueError(f"{root} holds {names}; of several files each must be named after its split")
        return stored
    if not split_word(root.name):
        return {"train": [root]}
    beside = sorted(path for path in root.parent.glob(f"[!.]*{root.suffix}") if split_word(path.name))
    return files_by_split(beside, str(root.parent))


def _table(lines: list[str], extensions: Collection[str]) -> list[list[str]]:
    """Lines as rows, by the first delimiter that gives each the same number of fields, two at least; else by spaces."""
    for delimiter in "\t;,":
        rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
        if lines and len(rows) == len(lines) and {len(row) for row in rows} == {len(rows[0])} and len(rows[0]) > 1:
            return rows
    return [_by_space(line.strip(), extensions) for line in lines]


def _by_space(line: str, extensions: Collection[str]) -> list[str]:
    if line[0] in "\"'":
        path, _, rest = line[1:].partition(line[0])
        return [path, rest.strip()] if rest.strip() else [path]
    path, _, label = line.rpartition(" ")
    return [path.strip(), label] if path and not _is_video(label, extensions) else [line]


def _is_video(cell: str, extensions: Collection[str]) -> bool:
    return PurePosixPath(cell.strip()).suffix.lower() in extensions


def _columns(source: Path, rows: list[list[str]], has_header: bool, videos: list[int]) -> tuple[int, int | None]:
    """Where the path and the label stand, by the header or, of two columns, by which of them holds a video."""
    names = [name.strip().lower() for name in rows[0]] if has_header else []
    path = next((names.index(name) for name in _PATH_NAMES if name in names), None)
    label = next((names.index(name) for name in _LABEL_NAMES if name in names), None)
    count = len(rows[0])
    if path is not None and (label is not None or count == 1):
        return path, label
    if count > 2:
        raise ValueError(f"{source} has {count} columns: a first line must name the columns `path` and `label`")
    path = videos[0] if videos else 0
    return path, 1 - path if count == 2 else None


def _classes(training: list[ListedVideos]) -> tuple[str, ...]:
    """By label; of numbers as many as the greatest asks for."""
    labels = {label for listed in training for label in listed.labels}
    if labels and all(label.isdecimal() for label in labels):
        return tuple(map(str, range(max(map(int, labels)) + 1)))
    return tuple(sorted(labels))


def _rows(listed: ListedVideos, classes: tuple[str, ...]) -> list[tuple[str, int]]:
    """Paths with the places of their labels among the classes."""
    if not classes:
        return [(path, 0) for path in listed.paths]
    if not len(listed.labels):
        raise ValueError(f"{listed.source} has no labels, unlike the training set")
    places = {name: place for place, name in enumerate(classes)}
    numbers = all(name.isdecimal() for name in classes)
    labels = [str(int(label)) if numbers and label.isdecimal() else label for label in listed.labels]
    if unknown := set(labels) - places.keys():
        raise ValueError(f"{listed.source}: label '{min(unknown)}' is not one of the training set's")
    return [(path, places[label]) for path, label in zip(listed.paths, labels, strict=True)]
