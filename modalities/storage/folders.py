"""Samples stored as files in folders: images, or anything else with a reader for one file."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa.modality import Sample, Split
from modalities.storage.packed import PackedStrings
from modalities.storage.splits import StoredSplit, carved_split, named_splits, split_named, split_source


@dataclass(frozen=True)
class FileKind:
    """Which files are samples: those with these endings (lower case, with the dot), or whole folders of them.

    partly_labelled: files beside class folders are unlabelled samples; by default they make all samples unlabelled.
    companions: endings of other members of a tar file that belong to the sample with the same key, such as captions.
    """

    noun: str  # as in "no images below ..."
    extensions: Collection[str]
    whole_folders: bool = False
    partly_labelled: bool = False
    companions: tuple[str, ...] = ()


class Files:
    """Samples read from paths below `folder`; with classes, the first part of a path names the class."""

    def __init__(self, folder: Path, paths: Sequence[str], classes: Sequence[str], read: Callable[[Path], Any]) -> None:
        self.folder, self.paths, self.read = folder, paths, read
        self.class_index = {name: index for index, name in enumerate(classes)}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        path = self.paths[index]
        label = self.class_index.get(_top(path))
        return Sample(self.read(self.folder / path), {} if label is None else {"class": label})


def open_folder(root: Path, split: Split, kind: FileKind, read: Callable[[Path], Any], seed: int | None) -> StoredSplit:
    """The files of one split below `root`, and the class names, () without labels.

    Splits: `root/train` beside `root/val` and/or `root/test`, in any of their usual spellings (splits.split_named); or
    `root/train` if no other folder beside it holds such files. Otherwise all of `root` is one training set. Missing
    splits are carved from the training set (storage.splits).
    Classes: if the training set has no file at its top level and at least two folders with files, these folders are the
    classes, in alphabetical order, and every file belongs to the top folder that it lies in. Otherwise the set is
    unlabelled; then train keeps all files, including those that are also carved for the other splits.
    Hidden files and folders are ignored. Links are followed, but every folder is listed only once.
    """
    check_folder(root)
    stored = folder_splits(root, kind)
    source, carve = split_source(stored, split)
    classes = class_folders(root / stored["train"], kind)
    everything = PackedStrings(walk(root / stored[source], kind))
    if not everything:
        endings = ", ".join(sorted(kind.extensions))
        raise ValueError(f"no {kind.noun} below {root / stored[source]}; looked for files ending in {endings}")
    tops = {_top(path) for path in everything if "/" in path or not kind.partly_labelled}
    if strays := tops - set(classes) if classes else set():
        raise ValueError(
            f"{root / stored[source] / min(strays)} is not one of the class folders of {root / stored['train']}: "
            f"{', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}"
        )
    if not carve or (split == "train" and not classes):
        paths = everything
    else:
        paths = PackedStrings(path for path in everything if carved_split(path, carve, seed) == split)
    return StoredSplit(Files(root / stored[source], paths, classes, read), classes)


def check_folder(root: Path) -> None:
    """Raise an error unless `root` is a folder."""
    if not root.exists():
        raise FileNotFoundError(f"data root {root} does not exist")
    if not root.is_dir():
        raise NotADirectoryError(f"data root {root} is a file; a folder is needed")


def folder_splits(root: Path, kind: FileKind) -> dict[Split, str]:
    """The folders of `root` that hold splits; {"train": ""}, that is `root` itself, if there are none."""
    folders = [name for name, is_folder in _entries(root) if is_folder]
    if not any(map(split_named, folders)):
        return {"train": ""}
    folders = [name for name in folders if next(walk(root / name, kind), None) is not None]
    splits = [split_named(name) for name in folders]
    if "train" not in splits and sum(each is not None for each in splits) == 1 and len(folders) > 2:
        return {"train": ""}  # a class with such a name, among others
    found = named_splits(folders, str(root)) if set(splits) - {"train", None} else {}
    held_out = found.keys() - {"train"}
    if held_out and "train" not in found:
        raise ValueError(f"{root} holds '{found[min(held_out)]}' but no 'train' folder with anything to read")
    if splits == ["train"]:
        return {"train": folders[0]}
    return found or {"train": ""}  # among other folders, train may be the name of a class


def class_folders(folder: Path, kind: FileKind) -> tuple[str, ...]:
    """The sorted names of the class folders of a training set, () if it is unlabelled."""
    names = []
    for name, is_folder in _entries(folder):
        if not is_folder and _ending(name) in kind.extensions and not kind.partly_labelled:
            return ()
        found = next(_walk(folder, f"{name}/", kind, set()), None) if is_folder else None
        if found == name:  # this folder is itself a sample
            return ()
        if found is not None:
            names.append(name)
    return tuple(names) if len(names) > 1 or kind.partly_labelled else ()


def walk(folder: Path, kind: FileKind) -> Iterator[str]:
    """Paths of the samples below `folder`, relative to it: depth first, sorted by name."""
    return _walk(folder, "", kind, set())


def _walk(folder: Path, prefix: str, kind: FileKind, visited: set[tuple[int, int]]) -> Iterator[str]:
    status = (folder / prefix).stat()
    if (status.st_dev, status.st_ino) in visited:  # a link to a parent folder would never end
        return
    visited.add((status.st_dev, status.st_ino))
    entries = _entries(folder / prefix)
    if kind.whole_folders and any(not is_folder and _ending(name) in kind.extensions for name, is_folder in entries):
        yield prefix.removesuffix("/") or "."
    for name, is_folder in entries:
        if is_folder:
            yield from _walk(folder, f"{prefix}{name}/", kind, visited)
        elif not kind.whole_folders and _ending(name) in kind.extensions:
            yield prefix + name


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Sorted visible entries of a folder, and whether each is a folder, without a disk access per file.

    Pipes and devices are left out. Broken links stay in; they count as unreadable files.
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
