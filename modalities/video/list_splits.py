"""The splits of listed videos, by the names of the lists or by a column `split`, and checks between them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jepa.modality import Split
from modalities.storage.labels import label_value
from modalities.storage.packed import PackedStrings
from modalities.storage.paths import HASH_PARTS, FileHashes, FileKeys, distinct, file_hashes
from modalities.storage.splits import split_named

_MIXED = 0x9E3779B97F4A7C1  # odd, so that a product keeps 64 bits apart


@dataclass(frozen=True)
class Words:
    """Words of which few differ, such as labels: the different ones, and the index of each row's; both may be empty."""

    names: Sequence[str]
    codes: NDArray[np.int32]
    in_order: bool = False  # whether all words occur, in the order of `names`

    def __len__(self) -> int:
        return len(self.codes)

    def used(self) -> dict[int, str]:
        """The words of the rows by index, in the order in which they first occur."""
        if self.in_order:
            return dict(enumerate(self.names))
        codes, first = np.unique(self.codes, return_index=True)
        return {code: self.names[code] for code in codes[np.argsort(first)].tolist()}

    def take(self, rows: NDArray[np.int64]) -> "Words":
        """The words of these rows."""
        return Words(self.names, self.codes[rows])


NO_WORDS = Words((), np.empty(0, np.int32))


@dataclass(frozen=True, eq=False)
class VideoList:
    """The paths, labels and splits of one file, as written."""

    source: Path
    paths: PackedStrings
    labels: Words  # as many as paths, or empty
    splits: Words  # likewise

    def in_folder(self, folder: Path) -> "KeyedList":
        """The same with hashes of the files; `folder`: that relative paths of all lists are in."""
        return KeyedList(self.source, self.paths, self.labels, self.splits, folder)

    def take(self, rows: NDArray[np.int64]) -> "VideoList":
        """Some rows, without their splits."""
        labels = self.labels.take(rows) if len(self.labels) else NO_WORDS
        return VideoList(self.source, self.paths.take(rows), labels, NO_WORDS)


@dataclass(frozen=True, eq=False)
class KeyedList(VideoList):
    """A list whose files can be compared with those of others."""

    folder: Path

    @cached_property
    def hashes(self) -> FileHashes:
        """Of the files of the paths."""
        return file_hashes(self.paths, FileKeys(self.folder))

    def drop_hashes(self) -> None:
        """Free their memory; they are made again if they are needed."""
        vars(self).pop("hashes", None)


def by_column(stored: dict[Split, list[VideoList]]) -> dict[Split, list[VideoList]]:
    """The lists by split; a column `split` takes precedence over the name of the file.

    A column in which no word means a split, such as the numbers of folds, is ignored.
    """
    lists = [(part, listed) for part, each in stored.items() for listed in each]
    if not any(split_named(word) for _, listed in lists for word in listed.splits.used().values()):
        return stored
    found: dict[Split, list[VideoList]] = {}
    for part, listed in lists:
        for split, rows in _parts(listed) if len(listed.splits) else [(part, listed)]:
            found.setdefault(split, []).append(rows)
    if "train" not in found:
        raise ValueError(f"{lists[0][1].source}: no line has the split train")
    return found


def _parts(listed: VideoList) -> Iterator[tuple[Split, VideoList]]:
    """The rows of one file by split."""
    meanings = {code: (word, split_named(word)) for code, word in listed.splits.used().items()}
    if unknown := sorted(word for word, split in meanings.values() if not split):
        usual = "allowed are train, val, test and their usual spellings"
        raise ValueError(f"{listed.source}: unknown split '{unknown[0]}' in the column split; {usual}")
    for split in dict.fromkeys(split for _, split in meanings.values() if split):
        codes = [code for code, (_, each) in meanings.items() if each == split]
        yield split, listed.take(np.flatnonzero(np.isin(listed.splits.codes, codes)))


def check_apart(stored: Mapping[Split, Sequence[KeyedList]]) -> tuple[str, ...]:
    """Raise ValueError if two splits share some of their videos. Equal lists, as for a trial, give a note."""
    notes, sizes = [], Counter[Split]()
    pairs = list(combinations(sorted(stored, key=("train", "validation", "test").index), 2))
    in_both: dict[tuple[Split, Split], list[NDArray[np.int64]]] = {pair: [] for pair in pairs}
    for part in range(HASH_PARTS) if pairs else ():
        files = {
            split: np.unique(np.concatenate([listed.hashes.files[listed.hashes.rows(part)] for listed in lists]))
            for split, lists in stored.items()
        }
        sizes.update({split: len(found) for split, found in files.items()})
        for one, other in pairs:
            in_both[one, other].append(np.intersect1d(files[one], files[other], assume_unique=True))
    for one, other in pairs:
        shared = np.concatenate(in_both[one, other])
        if len(shared) == sizes[one] == sizes[other]:
            notes.append(f"{one} and {other} list the same videos")
        elif len(shared):
            listed, rows = next(
                (listed, rows)
                for listed in stored[other]
                if len(rows := np.flatnonzero(np.isin(listed.hashes.files, shared)))
            )
            path = listed.paths[int(rows[0])]
            raise ValueError(f"{listed.source}: {path} is in {other} but also in {one}; one split is allowed")
    return tuple(notes)


def label_notes(stored: Mapping[Split, Sequence[KeyedList]]) -> tuple[str, ...]:
    """Notes on videos that are listed with several labels."""
    notes = []
    for split, lists in stored.items():
        labelled = [listed for listed in lists if len(listed.labels)]
        numbers = _numbers([listed.labels for listed in labelled])
        more = 0
        for part in range(HASH_PARTS) if labelled else ():
            files, pairs = [], []
            for listed, of_words in zip(labelled, numbers, strict=True):
                rows = listed.hashes.rows(part)
                files.append(listed.hashes.files[rows])
                pairs.append(files[-1] + of_words[listed.labels.codes[rows]] * _MIXED)
            more += distinct(np.concatenate(pairs)) - distinct(np.concatenate(files))
        if more:
            notes.append(f"{split}: {more:,} of the labels belong to videos that also have another label")
    return tuple(notes)


def _numbers(lists: Sequence[Words]) -> list[NDArray[np.int64]]:
    """A number for each word of each list, the same for equal labels."""
    values: dict[str, int] = {}
    found = []
    for words in lists:
        numbers = np.zeros(len(words.names), np.int64)
        for code, label in words.used().items():
            numbers[code] = values.setdefault(label_value(label), len(values) + 1)
        found.append(numbers)
    return found
