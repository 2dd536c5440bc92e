"""The splits of stored samples: training, validation (to choose hyper-parameters) and test (to report)."""

import re
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from glob import escape
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jepa.modality import Samples, Split

SPLIT_SEED = 0  # of the hash that carves splits; stored indexes record it

_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing", "te"), "test"),
}
_NOUNS = ("set", "split", "images", "imgs", "videos", "clips", "frames", "files", "list", "data", "s")
_SEPARATORS = re.compile(r"([-_. ])")
_NO_LETTERS = re.compile(r"[\d\-_. ]")


class StoredSplit(NamedTuple):
    """Samples of one split, and the class names by label; () without labels."""

    samples: Samples
    classes: tuple[str, ...]


def split_source(stored: Collection[Split], split: Split) -> tuple[Split, tuple[Split, ...]]:
    """Stored splits  ->  the one that `split` is read from, and the splits that are carved out of it.

    If only one of validation and test is stored, it is used as the test split, and validation is carved from train.
    """
    held_out = [name for name in stored if name != "train"]
    if len(held_out) == 2:
        return split, ()
    if len(held_out) == 1:
        return (held_out[0], ()) if split == "test" else ("train", ("validation",))
    return "train", ("validation", "test")


def carved_split(name: str, carve: tuple[Split, ...]) -> Split:
    """The split of one item of a training set: each split in `carve` gets a tenth of all items, train the rest.

    It depends on the item's name only, so that other items can come and go without moving it.
    """
    digest = blake2b(f"{SPLIT_SEED}/{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    tenth = int.from_bytes(digest, "big") * 10 >> 64
    return carve[tenth] if tenth < len(carve) else "train"


def carved_codes(
    names: Iterable[Sequence[bytes]],
    count: int,
    carve: tuple[Split, ...],
    seed: int | None = SPLIT_SEED,
    prefix: str = "",
) -> NDArray[np.int8]:
    """The same as `carved_split` of `count` names, given in lists of their bytes -> indices in ("train", *carve).

    seed: None hashes the names alone. prefix: stands before each name.
    """
    before = (
        prefix.encode("utf-8", "surrogateescape")
        if seed is None
        else f"{seed}/{prefix}".encode("utf-8", "surrogateescape")
    )
    codes, first = np.empty(count, np.int8), 0
    for part in names:
        digests = b"".join([blake2b(before + name, digest_size=8).digest() for name in part])
        high, low = np.frombuffer(digests, ">u4").astype(np.uint64).reshape(-1, 2).T
        tenths = (high * 10 + (low * 10 >> 32)) >> 32
        codes[first : first + len(part)] = np.where(tenths < len(carve), tenths + 1, 0)
        first += len(part)
    return codes


def split_named(word: str) -> Split | None:
    """The split that a word means, such as `train`, `Training`, `test_images`, `valset` or `train2017`."""
    letters = _letters(word)
    stems = (letters.removesuffix(noun) for noun in _NOUNS if letters.endswith(noun))
    return _WORDS.get(letters) or next((split for stem in stems if (split := _WORDS.get(stem))), None)


def named_splits(names: Iterable[str], where: str) -> dict[Split, str]:
    """The names that mean a split, by split; raises ValueError if two names mean the same one."""
    found: dict[Split, str] = {}
    for name in names:
        split = split_named(name)
        if split and split in found:
            raise ValueError(f"{where} holds both '{found[split]}' and '{name}': one {split} split is allowed")
        if split:
            found[split] = name
    return found


def files_by_split(paths: Sequence[Path], where: str) -> dict[Split, list[Path]]:
    """Files by the split that their names contain, as in `photos-train-000.tar`; all are train if no name has one.

    The word for a split may be numbered (train0.tar, train1.tar), but must be the same in all files of the split.
    """
    words = [split_word(path.name) for path in paths]
    named = named_splits(sorted({_letters(word) for word in words}), where)
    if not named:
        return {"train": list(paths)}
    if "" in words or "train" not in named:
        offender = f"{paths[words.index('')].name} names no split" if "" in words else "none is named train"
        ending = paths[0].suffix
        raise ValueError(
            f"{where}: {offender}; if one {ending} file is named after a split, all must be, such as train-0{ending}"
        )
    splits = [split_named(word) for word in words]
    return {split: [path for path, each in zip(paths, splits, strict=True) if each == split] for split in named}


def split_word(name: str) -> str:
    """The part of a file name that means a split, or an empty string; raises ValueError if parts mean two splits."""
    words = split_words(name)
    if len({split_named(word) for word in words}) > 1:
        raise ValueError(f"{name} names two splits, {' and '.join(dict.fromkeys(words))}; one is allowed")
    return words[0] if words else ""


def split_words(name: str) -> list[str]:
    """The parts of a file name that mean a split."""
    return [part for part in _SEPARATORS.split(name) if split_named(part)]


def set_name(name: str) -> str:
    """A file name whose first word for a split is masked, except for its digits; all files of one set share it."""
    before, word, after = _around_split(name)
    return f"{before}*{_digits(word)}{after}"


def named_files(root: Path) -> dict[Split, list[Path]]:
    """The files that `root` names, as a path or as a pattern such as `a_train-*.tar`, by split.

    If its name has a word for a split, the files beside it that differ in this word alone are the other splits.
    """
    beside = sorted(path for path in root.parent.iterdir() if path.suffix == root.suffix)
    named = [root] if root.exists() else [path for path in beside if fnmatchcase(path.name, root.name)]
    if not (word := split_word(root.name)):
        return files_by_split(named, str(root))
    pattern = escape(root.name) if root.exists() else root.name
    others = [path for path in beside if fnmatchcase(_in_split(path.name, word), pattern)]
    others = [path for path in others if split_named(split_words(path.name)[0]) != split_named(word)]
    return files_by_split([*named, *others], str(root.parent)) if others else {"train": named}


def _in_split(name: str, word: str) -> str:
    """The name that this file would have in the split that `word` means, "" if there is none."""
    before, own, after = _around_split(name)
    return f"{before}{word}{after}" if own and _digits(own) == _digits(word) else ""


def _around_split(name: str) -> tuple[str, str, str]:
    """What stands before the first word for a split, the word, and what follows; the word is "" if there is none."""
    parts = _SEPARATORS.split(name)
    first = next((index for index, part in enumerate(parts) if split_named(part)), len(parts))
    return "".join(parts[:first]), "".join(parts[first : first + 1]), "".join(parts[first + 1 :])


def _digits(word: str) -> str:
    return re.sub(r"\D", "", word)


def _letters(word: str) -> str:
    return _NO_LETTERS.sub("", word.casefold())
