"""Inputs as files in folders: images, or whatever else has a reader for one file."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa.modality import Sample, Samples, Split
from modalities.storage.packed import PackedStrings
from modalities.storage.splits import SPLIT_NAMES, carved_split, named_splits, serving


@dataclass(frozen=True)
class FileKind:
    """What is looked for: files with these endings, in lower case and with their dot, or whole folders of them.

    beside: endings of what is said of an input in another member of the same tar file, under the same key.
    """

    noun: str  # as in "no images below ..."
    extensions: Collection[str]
    whole_folders: bool = False
    beside: tuple[str, ...] = ()


class Files:
    """What `read` makes of the paths below `folder`; the first part of a path is the class, where there are classes."""

    def __init__(self, folder: Path, paths: Sequence[str], classes: Sequence[str], read: Callable[[Path], Any]) -> None:
        self.folder, self.paths, self.read = folder, paths, read
        self.class_index = {name: index for index, name in enumerate(classes)}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        path = self.paths[index]
        inputs = self.read(self.folder / path)
        return Sample(inputs, {"class": self.class_index[_top(path)]} if self.class_index else {})


def open_folder(
    root: Path, split: Split, kind: FileKind, read: Callable[[Path], Any], seed: int
) -> tuple[Samples, tuple[str, ...]]:
    """The files of one split below `root`, and the names of their classes, () where they have no labels.

    Splits: `root/train` beside `root/val` (or valid, validation) and/or `root/test`, or `root/train` with no other
    folder of such files beside it. Otherwise all of `root` is one training set. Splits that are not stored are carved
    from the training set (image_splits).
    Classes: where the training set has no file at its top and at least two folders with files there, these folders,
    sorted, are the classes, and all that lies below one belongs to it. Otherwise it is unlabelled, at any depth: then
    all its files are in train, and those carved from it for the other splits are not held out.
    Hidden files and folders are ignored; links are followed, and every folder is listed once.
    """
    check_folder(root)
    stored = folder_splits(root, kind)
    part, carve = serving(stored, split)
    classes = class_folders(root / stored["train"], kind)
    everything = PackedStrings(walk(root / stored[part], kind))
    if not everything:
        endings = ", ".join(sorted(kind.extensions))
        raise ValueError(f"no {kind.noun} below {root / stored[part]}; looked for files ending in {endings}")
    strays = {_top(path) for path in everything} - set(classes) if classes else set()
    if strays:
        raise ValueError(
            f"{root / stored[part] / min(strays)} is not one of the class folders of {root / stored['train']}: "
            f"{', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}"
        )
    if not carve or (split == "train" and not classes):
        paths = everything
    else:
        paths = PackedStrings(path for path in everything if carved_split(path, carve, seed) == split)
    return Files(root / stored[part], paths, classes, read), classes


def check_folder(root: Path) -> None:
    """Raise, with a sentence, unless `root` is a folder."""
    if not root.exists():
        raise FileNotFoundError(f"data root {root} does not exist")
    if not root.is_dir():
        raise NotADirectoryError(f"data root {root} is a file; a folder is needed")


def folder_splits(root: Path, kind: FileKind) -> dict[Split, str]:
    """The folders of `root` that hold the splits, by split; {"train": ""}, `root` itself, where none do."""
    folders = [name for name, is_folder in _entries(root) if is_folder]
    if not any(name.lower() in SPLIT_NAMES for name in folders):
        return {"train": ""}
    folders = [name for name in folders if holds_any(root / name, kind)]
    found = named_splits(folders, str(root))
    held_out = found.keys() - {"train"}
    if held_out and "train" not in found:
        raise ValueError(f"{root} holds '{found[min(held_out)]}' but no 'train' folder with anything to read")
    alone = folders == [found.get("train")]
    return found if held_out or alone else {"train": ""}  # among other folders, train may well be a class


def class_folders(folder: Path, kind: FileKind) -> tuple[str, ...]:
    """The sorted names of the class folders of a training set, () where it is unlabelled."""
    names = []
    for name, is_folder in _entries(folder):
        if not is_folder and _ending(name) in kind.extensions:
            return ()
        found = next(_walk(folder, f"{name}/", kind, set()), None) if is_folder else None
        if found == name:  # this folder is itself a sample
            return ()
        if found is not None:
            names.append(name)
    return tuple(names) if len(names) > 1 else ()


def holds_any(folder: Path, kind: FileKind) -> bool:
    """Whether something of this kind lies somewhere below `folder`."""
    return next(walk(folder, kind), None) is not None


def walk(folder: Path, kind: FileKind) -> Iterator[str]:
    """The paths, relative to `folder`, of what is looked for below it: depth first, sorted by name."""
    return _walk(folder, "", kind, set())


def _walk(folder: Path, prefix: str, kind: FileKind, seen: set[tuple[int, int]]) -> Iterator[str]:
    status = (folder / prefix).stat()
    if (status.st_dev, status.st_ino) in seen:  # a link back up would be followed for ever
        return
    seen.add((status.st_dev, status.st_ino))
    entries = _entries(folder / prefix)
    if kind.whole_folders and any(not is_folder and _ending(name) in kind.extensions for name, is_folder in entries):
        yield prefix.removesuffix("/") or "."
    for name, is_folder in entries:
        if is_folder:
            yield from _walk(folder, f"{prefix}{name}/", kind, seen)
        elif not kind.whole_folders and _ending(name) in kind.extensions:
            yield prefix + name


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """The visible entries of a folder, sorted, and whether each is a folder, without asking the disk about every file.

    Pipes and devices are left out; a link to nothing stays in, to be counted as a file that cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(
            (entry.name, entry.is_dir())
            for entry in entries
            if not entry.name.startswith(".") and (entry.is_file() or entry.is_dir() or entry.is_symlink())
        )


def _ending(name: str) -> str:
    return name[name.rfind(".") :].lower() if "." in name else ""


def _top(path: str) -> str:
    return path.partition("/")[0]
