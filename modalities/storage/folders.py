"""Samples stored as files in folders: images, or anything else with a reader for one file."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jepa.data.summary import SplitSummary, digest
from jepa.disk.columns import Columns
from jepa.modality import Label, Sample, Split
from modalities.storage.index import Listed, Request, SplitIndex, packed
from modalities.storage.layout import ClassLevel, Layout, class_folders, class_root, find_layout
from modalities.storage.listing import FEW, FileKind, walk
from modalities.storage.opened import Opened
from modalities.storage.packed import PackedStrings
from modalities.storage.splits import StoredSplit, carved_codes, split_named, split_source

__all__ = ["FileKind", "Files", "check_folder", "class_folders", "open_folder", "walk"]

_BATCH = re.compile(r"(batch|chunk|fold|folder|part|shard|subset|set|group|dir|disk|page)[-_ ]?\d+", re.IGNORECASE)
_TRIED = 1_000  # paths in which splits inside classes are noticed


class Files:
    """Samples read from the paths of an index; with classes, the first part of a path names the class."""

    def __init__(self, found: SplitIndex, read: Callable[[Path], Any]) -> None:
        self.found, self.read = found, read
        self.folder, self.summary = found.folder, found.summary
        self.paths = found.strings("paths")
        self.class_index = {name: index for index, name in enumerate(found.classes)}

    def __reduce__(self) -> tuple[Any, ...]:
        return Files, (self.found, self.read)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.read(self.folder / self.paths[index]), self.labels_of(index))

    def labels_of(self, index: int) -> dict[str, Label]:
        """The labels of a sample, without reading its file."""
        label = self.class_index.get(_top(self.paths[index]))
        return {} if label is None else {"class": label}

    def name_of(self, index: int) -> str:
        """The path of a sample."""
        return str(self.folder / self.paths[index])

    def digest(self) -> str:
        """A digest of the paths and their order."""
        return self.found.digest


class Listing(NamedTuple):
    """The files of a split, and what is no sample, counted by ending."""

    paths: PackedStrings
    passed_over: Counter[str]


def open_folder(
    root: Path,
    split: Split,
    kind: FileKind,
    read: Callable[[Path], Any],
    seed: int | None,
    labels: bool = True,
    opened: Opened | None = None,
    otherwise: FileKind | None = None,
) -> StoredSplit:
    """The files of one split below `root`, and the class names, () without labels.

    Splits: `root/train` beside `root/val` and/or `root/test`, in any of their usual spellings (storage.splits); or
    `root/train` if no other folder beside it holds such files. Otherwise all of `root` is one training set. Missing
    splits are carved from the training set.
    Classes: if the training set has at least two folders with files, and few files beside them (storage.layout),
    these folders are the classes, in alphabetical order, and every file belongs to the top folder that it lies in.
    Otherwise the set is unlabelled; then train keeps all files, including those that are also carved for the other
    splits. labels: false makes any set unlabelled.
    If `root`, or the folder of a split, holds nothing but one folder, that folder may hold the splits or classes.
    Hidden files and folders are ignored, and so are run directories. Links are followed, but every folder is listed
    only once. Splits that are opened with the same `opened` share their lists.
    otherwise: the kind of the samples if `root` holds none of `kind`, but some of these.
    """
    check_folder(root)
    opened = opened or Opened()
    settings = {"kinds": [kind.rules, otherwise and otherwise.rules], "seed": seed, "labels": labels}
    request = Request("folder", root, split, settings)
    found = opened.indexed(request, lambda: _found(root, split, (kind, otherwise), seed, labels, opened))
    return StoredSplit(Files(found, read), found.classes)


def _found(
    root: Path, split: Split, kinds: tuple[FileKind, FileKind | None], seed: int | None, labels: bool, opened: Opened
) -> SplitIndex:
    """List one split, see `open_folder`."""
    listed = opened.once(("listed", root), Listed)
    kind = opened.once(("kind", root), lambda: _kind_below(root, kinds, listed))
    layout = opened.once(("layout", root), lambda: find_layout(root, kind))
    source, carve = split_source(list(layout.splits), split)
    training, level = opened.once(("classes", root), lambda: _classes(layout, kind, labels))
    folder = layout.base / layout.splits[source]
    folder = training if source == "train" else class_root(folder, kind, level.names)[0] if labels else folder
    held_out = bool(carve) and (split != "train" or bool(level.names))
    whole = partial(_listed, folder, training, level, kind)
    if held_out:
        # If training keeps all files, their list stays; otherwise only the parts do.
        everything = whole if level.names else partial(opened.once, folder, whole)
        parts = opened.once((folder, carve), lambda: _carved(everything(), carve, seed, bool(level.names)))
    else:
        parts = {split: opened.once(folder, whole)}
    paths = parts[split].paths
    summary = SplitSummary(
        kind.noun,
        f"below {folder}",
        level.names,
        passed_over=parts[split].passed_over + layout.beside,
        notes=_notes(level, folder, paths) + kind.advice(parts[split].passed_over),
    ).of_split(split, carve, {each: len(parts[each].paths) for each in carve} if level.names else {})
    columns = Columns({**packed("paths", paths), **listed.columns()})
    return SplitIndex(len(paths), columns, level.names, summary, digest(*paths.buffers()), folder)


def _kind_below(root: Path, kinds: tuple[FileKind, FileKind | None], listed: Listed) -> FileKind:
    """The first kind, unless the root holds none of these samples, but some of the second kind."""
    first, second = (kind and replace(kind, listed=listed) for kind in kinds)
    assert first is not None
    if second is None or any(True for _ in walk(root, first)) or not any(True for _ in walk(root, second)):
        return first
    return second


def check_folder(root: Path) -> None:
    """Raise an error unless `root` is a folder."""
    if not root.exists():
        raise FileNotFoundError(f"data root {root} does not exist")
    if not root.is_dir():
        raise NotADirectoryError(f"data root {root} is a file; a folder is needed")


def _classes(layout: Layout, kind: FileKind, labels: bool) -> tuple[Path, ClassLevel]:
    """The folder of the training set, and the class folders in it."""
    training = layout.base / layout.splits["train"]
    if not labels:
        return training, ClassLevel(())
    return (training, layout.level) if layout.level is not None else class_root(training, kind)


def _listed(folder: Path, training: Path, level: ClassLevel, kind: FileKind) -> Listing:
    """All samples of a stored split; raises ValueError if there are none."""
    passed_over: Counter[str] = Counter()
    paths = _files(folder, training, level, kind, passed_over)
    if not paths:
        why = kind.advice(passed_over) or (f"looked for files ending in {', '.join(sorted(kind.extensions))}",)
        raise ValueError(f"no {kind.noun} below {folder}; {'; '.join(why)}")
    return Listing(paths, passed_over)


def _files(folder: Path, training: Path, level: ClassLevel, kind: FileKind, passed_over: Counter[str]) -> PackedStrings:
    """All samples of a stored split; with classes, without the few beside the class folders.

    Raises ValueError for a folder, or for many samples, that are in no class of the training set.
    """
    found = walk(folder, kind, passed_over)
    if not level.names:
        return PackedStrings(found)
    tops: set[str] = set()
    strays: list[str] = []
    paths = PackedStrings(_in_folders(found, tops, None if kind.partly_labelled else strays))
    unknown = tops - set(level.names)
    if len(strays) > max(FEW, len(paths) // 99) or len(strays) > len(paths):
        unknown.add(strays[0])
    if unknown:
        raise ValueError(
            f"{folder / min(unknown)} is not one of the class folders of {training}: "
            f"{', '.join(level.names[:10])}{', ...' if len(level.names) > 10 else ''}; "
            "move it, or set data.labels=none to use all files without classes"
        )
    if strays:
        passed_over[f"beside the class folders, such as {strays[0]}"] = len(strays)
    return paths


def _in_folders(paths: Iterable[str], tops: set[str], strays: list[str] | None) -> Iterator[str]:
    """The paths in folders, which are added to `tops`; other paths go to `strays`, or are kept if that is None."""
    for path in paths:
        top, in_folder, _ = path.partition("/")
        if in_folder:
            tops.add(top)
        elif strays is not None:
            strays.append(path)
            continue
        yield path


def _carved(everything: Listing, carve: tuple[Split, ...], seed: int | None, with_rest: bool) -> dict[Split, Listing]:
    """The samples of the splits of `carve`, and with `with_rest` what they leave of the training set, as `train`."""
    codes = carved_codes(everything.paths.encoded(), len(everything.paths), carve, seed)
    splits: tuple[Split, ...] = ("train", *carve)
    parts = {split: np.flatnonzero(codes == code) for code, split in enumerate(splits) if with_rest or code}
    return {split: Listing(everything.paths.take(rows), everything.passed_over) for split, rows in parts.items()}


def _notes(level: ClassLevel, folder: Path, paths: PackedStrings) -> tuple[str, ...]:
    """Sentences on folders that the user may have meant differently."""
    notes = [level.note] if level.note else []
    notes += [f"the folder {name} in {folder} is taken for a class" for name in level.names if split_named(name)]
    if level.names and all(map(_BATCH.fullmatch, level.names)):
        notes.append(f"the folders in {folder} are taken for classes; if they are none, set data.labels=none")
    inner = (paths[index].split("/")[:-1] for index in range(0, len(paths), len(paths) // _TRIED + 1))
    named = {split: "/".join(parts) for parts in inner if len(parts) > 1 and (split := split_named(parts[1]))}
    if "train" in named and len(named) > 1:
        alike = " and ".join(sorted(named.values()))
        notes.append(f"{alike} in {folder} are not taken for splits; move the folders of splits to the top")
    return tuple(notes)


def _top(path: str) -> str:
    return path.partition("/")[0]
