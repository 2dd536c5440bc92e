"""Videos listed in text files: a path and optionally a label per line."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jepa.data.summary import SplitSummary, digest
from jepa.disk.columns import Columns, Streamed
from jepa.modality import Label, Sample, Split
from modalities.storage.index import Request, SplitIndex, packed
from modalities.storage.labels import NO_CLASSES, UNLABELLED, Classes, classes_of
from modalities.storage.opened import Opened
from modalities.storage.packed import PackedStrings, TakenStrings
from modalities.storage.paths import FileHashes, existing_file, one_spelling
from modalities.storage.splits import SPLIT_SEED, StoredSplit, carved_codes, files_by_split, named_files, split_source
from modalities.video.list_rows import read_list
from modalities.video.list_splits import KeyedList, by_column, check_apart, label_notes

_AT_ONCE = 2**16  # labels
_LISTS = {".csv", ".tsv"}

Noted = Callable[[PackedStrings | TakenStrings], tuple[str, ...]]


class ListSamples:
    """Samples read from the listed paths of an index; `labels` has the class of each, or UNLABELLED."""

    def __init__(self, found: SplitIndex, read: Callable[[Path], Any]) -> None:
        self.found, self.read = found, read
        self.folder, self.summary = found.folder, found.summary
        self.paths, self.labels = found.strings("paths"), found.columns["labels"]

    def __reduce__(self) -> tuple[Any, ...]:
        return ListSamples, (self.found, self.read)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        inputs = self.read(existing_file(self.folder, self.paths[index]))
        return Sample(inputs, self.labels_of(index))

    def name_of(self, index: int) -> str:
        """The path of a sample, as listed, below the folder of the list."""
        return str(self.folder / self.paths[index])

    def digest(self) -> str:
        """A digest of the paths, their order and their labels."""
        return self.found.digest

    def labels_of(self, index: int) -> dict[str, Label]:
        """The labels of a sample, without reading it."""
        label = int(self.labels[index])
        return {} if label == UNLABELLED else {"class": label}


def open_lists(
    root: Path,
    split: Split,
    extensions: Collection[str],
    read: Callable[[Path], Any],
    reads_labels: bool = True,
    opened: Opened | None = None,
    noted: Noted = lambda paths: (),
) -> StoredSplit:
    """The videos of one split listed in the .csv or .tsv files at `root`, and the class names, () if unlabelled.

    `root` is a folder with one file or with several named after splits (train.csv, val.csv, test.csv); or a file, and
    then those beside it that differ in the word for the split alone are the other splits. Missing splits are carved
    (storage.splits). Two splits must not share videos.
    A line is `path label` or a path alone, separated by a tab, semicolon, comma or space. A path with spaces is quoted;
    otherwise the last space separates. A first line without a video is a header; with more than two columns it is
    required and must name a `path` and a `label` (storage.labels). A column `split` takes precedence over the name of
    the file (video.list_splits). Paths are absolute or relative to the file's folder.
    reads_labels: false ignores the labels. noted: notes on the paths of a split.
    """
    opened, files = opened or Opened(), _stored_lists(root)
    settings = {"extensions": sorted(extensions), "seed": SPLIT_SEED, "labels": reads_labels, "splits": list(files)}
    request = Request("list", root, split, settings, [path for paths in files.values() for path in paths], edges=True)
    found = opened.indexed(request, lambda: _found(files, split, extensions, reads_labels, opened, noted))
    return StoredSplit(ListSamples(found, read), found.classes)


class _Rows(NamedTuple):
    """The rows of a stored split, with one spelling of each file, and the splits that each is carved for."""

    paths: PackedStrings
    labels: NDArray[np.int32]
    carved: NDArray[np.int8]  # index in ("train", *carve), or nothing


def _found(
    files: dict[Split, list[Path]],
    split: Split,
    extensions: Collection[str],
    reads_labels: bool,
    opened: Opened,
    noted: Noted,
) -> SplitIndex:
    """Read one split, see `open_lists`."""
    stored, notes = opened.once(
        ("lists", *map(tuple, files.values())), lambda: _read_all(files, extensions, reads_labels)
    )
    source, carve = split_source(list(stored), split)
    classes = _classes(stored["train"]) if reads_labels else NO_CLASSES
    rows = opened.once(("rows", source, carve), lambda: _rows(stored[source], classes, carve))
    paths: PackedStrings | TakenStrings = rows.paths
    labels, sizes = rows.labels, {}
    if carve and classes.names:
        sizes = {each: int((rows.carved == code).sum()) for code, each in enumerate(carve, start=1)}
    if carve and (split != "train" or classes.names):
        kept = rows.carved == ("train", *carve).index(split)
        paths, labels = TakenStrings(rows.paths, kept), labels[kept]
    where = f"listed in {', '.join(str(listed.source) for listed in stored[source])}"
    summary = SplitSummary("videos", where, classes.names, notes=notes).of_split(split, carve, sizes)
    summary = replace(summary, notes=(*summary.notes, *noted(paths)))
    text, ends = paths.buffers()
    names = digest(text, ends, Streamed(np.dtype(np.int64), labels.shape, lambda: _as_int64(labels)))
    columns, streamed = {"labels": labels}, {}
    if isinstance(text, Streamed) and isinstance(ends, Streamed):
        streamed = {"paths": text, "paths_ends": ends}
    else:
        columns |= packed("paths", rows.paths)
    folder = stored[source][0].source.parent
    return SplitIndex(len(paths), Columns(columns), classes.names, summary, names, folder, streamed)


def _as_int64(labels: NDArray[np.int32]) -> Iterator[NDArray[np.int64]]:
    """The labels in blocks of 64-bit numbers, from which digests are made."""
    for first in range(0, len(labels), _AT_ONCE):
        yield labels[first : first + _AT_ONCE].astype(np.int64)


def _read_all(
    files: dict[Split, list[Path]], extensions: Collection[str], reads_labels: bool
) -> tuple[dict[Split, list[KeyedList]], tuple[str, ...]]:
    """The lists of all splits, and notes on them."""
    by_name = by_column({part: [read_list(path, extensions) for path in paths] for part, paths in files.items()})
    folder = by_name["train"][0].source.parent
    stored = {part: [listed.in_folder(folder) for listed in lists] for part, lists in by_name.items()}
    return stored, check_apart(stored) + (label_notes(stored) if reads_labels else ())


def _rows(lists: Sequence[KeyedList], classes: Classes, carve: tuple[Split, ...]) -> _Rows:
    """The rows of all lists of a split."""
    labels = np.concatenate([_numbers(listed, classes) for listed in lists])
    hashes = FileHashes.joined([listed.hashes for listed in lists])
    paths, labels = one_spelling(PackedStrings.joined([listed.paths for listed in lists]), labels, hashes)
    for listed in lists:
        listed.drop_hashes()
    carved = carved_codes(paths.encoded(), len(paths), carve) if carve else np.empty(0, np.int8)
    return _Rows(paths, labels, carved)


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


def _classes(training: Sequence[KeyedList]) -> Classes:
    try:
        return classes_of(label for listed in training for label in listed.labels.used().values())
    except ValueError as error:
        raise ValueError(f"{training[0].source}: {error}") from error


def _numbers(listed: KeyedList, classes: Classes) -> NDArray[np.int32]:
    """The class of each row."""
    if not classes.names:
        return np.full(len(listed.paths), UNLABELLED, np.int32)
    if not len(listed.labels):
        raise ValueError(f"{listed.source} has no labels, unlike the training set")
    numbers = np.full(len(listed.labels.names), UNLABELLED, np.int32)
    try:
        for code, label in listed.labels.used().items():
            numbers[code] = classes.number(label)
    except ValueError as error:
        raise ValueError(f"{listed.source}: {error}") from error
    return numbers[listed.labels.codes]
