"""Folders of samples: which files are samples, and which folders are splits, classes, or neither."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from jepa.modality import Split
from modalities.storage.listing import FEW, Entries, FileKind, ending, entries, walk, walk_below
from modalities.storage.splits import named_splits, set_name, split_named, split_words


class ClassLevel(NamedTuple):
    """The class folders of a training set, () if it is unlabelled, and the few samples beside them."""

    names: tuple[str, ...]
    strays: tuple[str, ...] = ()
    note: str = ""  # why folders are not taken for classes


@dataclass(frozen=True)
class Layout:
    """The folders that hold the splits, by name below `base`; {"train": ""} if all of `base` is one training set.

    beside: what lies beside the folders of splits. level: the classes in `base`, if it is one training set.
    """

    base: Path
    splits: Mapping[Split, str]
    beside: Counter[str] = field(default_factory=Counter)
    level: ClassLevel | None = None


def find_layout(root: Path, kind: FileKind) -> Layout:
    """The splits of the samples below `root`, or below its only folder, or the only one in that, and so on.

    A folder inside `root` is taken instead of it if it has splits or class folders, which `root` lacks.
    """
    of_root: ClassLevel | None = None
    folder: Path | None = root
    while folder is not None:
        found = entries(folder, kind)
        splits = _splits_in(folder, found, kind)
        if splits != {"train": ""}:
            return Layout(folder, splits, _beside(folder, found, splits, kind))
        level = _class_level(folder, found, kind)
        of_root = of_root or level
        if level.names and not kind.partly_labelled:
            return Layout(folder, splits, level=level)
        folder = _only_folder(folder, found, kind)
    return Layout(root, {"train": ""}, level=of_root)


def class_folders(folder: Path, kind: FileKind) -> tuple[str, ...]:
    """The sorted names of the class folders of a training set, () if it is unlabelled."""
    return _class_level(folder, entries(folder, kind), kind).names


def class_root(folder: Path, kind: FileKind, classes: Collection[str] = ()) -> tuple[Path, ClassLevel]:
    """The folder itself, or the one below it that has class folders, if there is only one folder at each level.

    classes: the names of the training set's classes; a folder with one of them holds a class and nothing else.
    """
    of_folder: ClassLevel | None = None
    inner: Path | None = folder
    while inner is not None and inner.name not in classes:
        found = entries(inner, kind)
        level = _class_level(inner, found, kind)
        of_folder = of_folder or level
        if level.names or kind.partly_labelled:
            return inner, level
        inner = _only_folder(inner, found, kind)
    return folder, of_folder or ClassLevel(())


def _splits_in(root: Path, found: Entries, kind: FileKind) -> dict[Split, str]:
    """The folders that hold splits.

    Folders are splits if one of them means train and another a held-out split. Their names are words for a split, or
    differ in such a word alone, as seg_train and seg_test. A lone `train` is a split, too.
    """
    folders = [name for name, is_folder in found if is_folder]
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


def _class_level(folder: Path, found: Entries, kind: FileKind) -> ClassLevel:
    """The class folders of a training set: all of its folders with samples, if there are at least two.

    Samples beside them are passed over if they are at most 10, or at most 1 % of all, and fewer than the others. More
    of them make the set unlabelled, not an error: folders inside a folder of images may have any meaning, training uses
    every image, and the note says so.
    """
    if sum(is_folder for _, is_folder in found) < (1 if kind.partly_labelled else 2):
        return ClassLevel(())
    names, strays = [], []
    for name, is_folder in found:
        first = next(walk_below(folder, name, kind), None) if is_folder else None
        if first == name or (not is_folder and not kind.whole_folders and ending(name) in kind.extensions):
            strays.append(name)
        elif first is not None:
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


def _only_folder(folder: Path, found: Entries, kind: FileKind) -> Path | None:
    """The only folder with samples, if there are no others; None if it is itself a sample."""
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


def _beside(base: Path, found: Entries, splits: Mapping[Split, str], kind: FileKind) -> Counter[str]:
    """Samples in `base` that lie in none of its splits."""
    passed_over: Counter[str] = Counter()
    for name, is_folder in found:
        if is_folder and name not in splits.values() and next(walk_below(base, name, kind), None) is not None:
            passed_over[f"the folder {name}"] += 1
        elif not is_folder and ending(name) in kind.extensions:
            passed_over["beside the splits"] += 1
    return passed_over
