"""Folders of samples: which files are samples, and which folders are splits, classes, or neither."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from jepa.modality import Split
from modalities.storage.splits import named_splits, set_name, split_named, split_words

FEW = 10  # files beside class folders, or images beside folders of frames, that may be passed over
_RUN_FILES = {"metrics.jsonl", "checkpoints", "report.html", "results.json", "tensorboard", "slurm"}
_PLAIN_ENDING = re.compile(r"\.\w{1,10}")


@dataclass(frozen=True)
class FileKind:
    """Which files are samples: those with these endings (lower case, with the dot), or whole folders of them.

    partly_labelled: files beside class folders are unlabelled samples; by default they are passed over if they are few,
    and otherwise make all samples unlabelled.
    companions: endings of other members of a tar file that belong to the sample with the same key, such as captions.
    """

    noun: str  # as in "no images below ..."
    extensions: Collection[str]
    whole_folders: bool = False
    partly_labelled: bool = False
    companions: tuple[str, ...] = ()


class ClassLevel(NamedTuple):
    """The class folders of a training set, () if it is unlabelled, and the few samples beside them."""

    names: tuple[str, ...]
    strays: tuple[str, ...] = ()
    note: str = ""  # why folders are not taken for classes


@dataclass(frozen=True)
class Layout:
    """The folders that hold the splits, by name below `base`; {"train": ""} if all of `base` is one training set."""

    base: Path
    splits: Mapping[Split, str]
    beside: Counter[str] = field(default_factory=Counter)  # what lies beside the folders of splits


def find_layout(root: Path, kind: FileKind) -> Layout:
    """The splits of the samples below `root`, or below its only folder, or the only one in that, and so on.

    A folder inside `root` is taken instead of it if it has splits or class folders, which `root` lacks.
    """
    folder: Path | None = root
    while folder is not None:
        splits = folder_splits(folder, kind)
        if splits != {"train": ""}:
            return Layout(folder, splits, _beside(folder, splits, kind))
        if not kind.partly_labelled and class_level(folder, kind).names:
            return Layout(folder, splits)
        folder = _only_folder(folder, kind)
    return Layout(root, {"train": ""})


def folder_splits(root: Path, kind: FileKind) -> dict[Split, str]:
    """The folders of `root` that hold splits; {"train": ""}, that is `root` itself, if there are none.

    Folders are splits if one of them means train and another a held-out split. Their names are words for a split, or
    differ in such a word alone, as seg_train and seg_test. A lone `train` is a split, too.
    """
    folders = [name for name, is_folder in entries(root) if is_folder]
    if not any(map(split_words, folders)) and not any(map(split_named, folders)):
        return {"train": ""}
    folders = [name for name in folders if next(walk(root / name, kind), None) is not None]
    splits = [split_named(name) for name in folders]
    held_out = {each for each in splits if each not in ("train", None)}
    if "train" in splits and held_out:
        return named_splits(folders, str(root))
    if splits == ["train"]:
        return {"train": folders[0]}
    if pair := _named_alike(folders, root):
        return pair
    lacks_train = held_out and (len(folders) < 3 or len(held_out) > 1)
    if lacks_train:
        name = folders[next(index for index, each in enumerate(splits) if each in held_out)]
        raise ValueError(f"{root} holds '{name}' but no 'train' folder with anything to read")
    return {"train": ""}  # among other folders, train or test may be the name of a class


def class_folders(folder: Path, kind: FileKind) -> tuple[str, ...]:
    """The sorted names of the class folders of a training set, () if it is unlabelled."""
    return class_level(folder, kind).names


def class_level(folder: Path, kind: FileKind) -> ClassLevel:
    """The class folders of a training set: all of its folders with samples, if there are at least two.

    Samples beside them are passed over if they are at most 10, or at most 1 % of all, and fewer than the others. More
    of them make the set unlabelled, not an error: folders inside a folder of images may have any meaning, training uses
    every image, and the note says so.
    """
    names, strays = [], []
    for name, is_folder in entries(folder):
        found = next(walk_below(folder, name, kind), None) if is_folder else None
        if found == name or (not is_folder and not kind.whole_folders and ending(name) in kind.extensions):
            strays.append(name)
        elif found is not None:
            names.append(name)
    if kind.partly_labelled:
        return ClassLevel(tuple(names))
    if len(names) < 2:
        return ClassLevel(())
    enough = max(len(strays) + 1, 99 * len(strays) if len(strays) > FEW else 0)
    inside = chain.from_iterable(walk_below(folder, name, kind) for name in names)
    if strays and sum(1 for _ in islice(inside, enough)) < enough:
        also = f"{len(strays):,} {kind.noun} lie beside the folders {', '.join(names[:3])}{', ...' * (len(names) > 3)}"
        return ClassLevel((), note=f"{also}, which are therefore not taken for classes")
    return ClassLevel(tuple(names), tuple(strays))


def class_root(folder: Path, kind: FileKind, classes: Collection[str] = ()) -> Path:
    """The folder itself, or the one below it that has class folders, if there is only one folder at each level.

    classes: the names of the training set's classes; a folder with one of them holds a class and nothing else.
    """
    inner: Path | None = folder
    while inner is not None and not kind.partly_labelled:
        if class_level(inner, kind).names:
            return inner
        inner = _only_folder(inner, kind)
        if inner is not None and inner.name in classes:
            break
    return folder


def walk(folder: Path, kind: FileKind, passed_over: Counter[str] | None = None) -> Iterator[str]:
    """Paths of the samples below `folder`, relative to it: depth first, sorted by name.

    passed_over: counts what is no sample, by ending. Run directories and sweeps of this program are left out.
    """
    return _walk(folder, "", kind, set(), Counter() if passed_over is None else passed_over)


def walk_below(folder: Path, name: str, kind: FileKind) -> Iterator[str]:
    """Paths of the samples in one folder of `folder`, relative to the latter."""
    return _walk(folder, f"{name}/", kind, {_identity(folder)}, Counter())


def _walk(
    folder: Path, prefix: str, kind: FileKind, visited: set[tuple[int, int]], passed_over: Counter[str]
) -> Iterator[str]:
    identity = _identity(folder / prefix)
    if identity in visited:  # a link to a parent folder would never end
        return
    visited.add(identity)
    found = entries(folder / prefix)
    if prefix and _is_written_by_a_run({name for name, _ in found}):
        passed_over[f"the run directory {prefix.removesuffix('/')}"] += 1
        return
    if kind.whole_folders:
        own = sum(not is_folder and ending(name) in kind.extensions for name, is_folder in found)
        folders = [name for name, is_folder in found if is_folder]
        inner = chain.from_iterable(_walk(folder, f"{prefix}{name}/", kind, visited, passed_over) for name in folders)
        first = next(inner, None)
        if own and (own > FEW or first is None):
            yield prefix.removesuffix("/") or "."
        elif own:
            passed_over[f"beside {kind.noun}"] += own
        yield from chain([] if first is None else [first], inner)
        return
    for name, is_folder in found:
        if is_folder:
            yield from _walk(folder, f"{prefix}{name}/", kind, visited, passed_over)
        elif ending(name) in kind.extensions:
            yield prefix + name
        else:
            passed_over[_described(name)] += 1


def entries(folder: Path) -> list[tuple[str, bool]]:
    """Sorted visible entries of a folder, and whether each is a folder, without a disk access per file.

    Pipes and devices are left out. Broken links stay in; they count as unreadable files.
    """
    with os.scandir(folder) as found:
        return sorted(
            (entry.name, entry.is_dir())
            for entry in found
            if not entry.name.startswith(".") and (entry.is_file() or entry.is_dir() or entry.is_symlink())
        )


def ending(name: str) -> str:
    """The ending of a file name in lower case, with the dot; empty without one."""
    return name[name.rfind(".") :].lower() if "." in name else ""


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _described(name: str) -> str:
    found = ending(name)
    return found if _PLAIN_ENDING.fullmatch(found) else "without ending"


def _is_written_by_a_run(names: Collection[str]) -> bool:
    return "sweep.json" in names or ("config.yaml" in names and not _RUN_FILES.isdisjoint(names))


def _only_folder(folder: Path, kind: FileKind) -> Path | None:
    """The only folder with samples, if there are no others; None if it is itself a sample."""
    found = entries(folder)
    if any(not is_folder and ending(name) in kind.extensions for name, is_folder in found):
        return None
    samples = ((name, next(walk_below(folder, name, kind), None)) for name, is_folder in found if is_folder)
    inner = list(islice(((name, sample) for name, sample in samples if sample is not None), 2))
    return folder / inner[0][0] if len(inner) == 1 and inner[0][1] != inner[0][0] else None


def _named_alike(folders: Sequence[str], root: Path) -> dict[Split, str]:
    """Folders of one set whose names differ in the word for the split alone; {} if none do."""
    sets: dict[str, dict[Split, str]] = {}
    for name in folders:
        words = {split for word in split_words(name) if (split := split_named(word))}
        if len(words) == 1:
            sets.setdefault(set_name(name), {})[words.pop()] = name
    complete = [names for names in sets.values() if "train" in names and len(names) > 1]
    if len(complete) > 1:
        raise ValueError(f"{root} holds several sets, such as {' and '.join(each['train'] for each in complete[:2])}")
    return complete[0] if complete else {}


def _beside(base: Path, splits: Mapping[Split, str], kind: FileKind) -> Counter[str]:
    """Samples in `base` that lie in none of its splits."""
    passed_over: Counter[str] = Counter()
    for name, is_folder in entries(base):
        if is_folder and name not in splits.values() and next(walk_below(base, name, kind), None) is not None:
            passed_over[f"the folder {name}"] += 1
        elif not is_folder and ending(name) in kind.extensions:
            passed_over["beside the splits"] += 1
    return passed_over
