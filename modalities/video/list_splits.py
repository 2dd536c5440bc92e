"""The splits of listed videos, by the names of the lists or by a column `split`, and checks between them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from jepa.modality import Split
from modalities.storage.labels import label_value
from modalities.storage.packed import PackedStrings
from modalities.storage.paths import FileKeys, distinct
from modalities.storage.splits import split_named


@dataclass(frozen=True)
class VideoList:
    """The paths, labels and splits of one file, as written."""

    source: Path
    paths: PackedStrings
    labels: PackedStrings  # as many as paths, or empty
    splits: PackedStrings  # likewise


def by_column(stored: dict[Split, list[VideoList]]) -> dict[Split, list[VideoList]]:
    """The lists by split; a column `split` takes precedence over the name of the file.

    A column in which no word means a split, such as the numbers of folds, is ignored.
    """
    lists = [(part, listed) for part, each in stored.items() for listed in each]
    if not any(split_named(word) for _, listed in lists for word in set(listed.splits)):
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
    meanings = {word: split_named(word) for word in set(listed.splits)}
    if unknown := sorted(word for word, split in meanings.items() if not split):
        usual = "allowed are train, val, test and their usual spellings"
        raise ValueError(f"{listed.source}: unknown split '{unknown[0]}' in the column split; {usual}")
    splits = [meanings[word] for word in listed.splits]
    for split in dict.fromkeys(each for each in splits if each):
        rows = [row for row, each in enumerate(splits) if each == split]
        labels = (listed.labels[row] for row in rows) if len(listed.labels) else ()
        paths = PackedStrings(listed.paths[row] for row in rows)
        yield split, VideoList(listed.source, paths, PackedStrings(labels), PackedStrings(()))


def check_apart(stored: Mapping[Split, Sequence[VideoList]], file_key: FileKeys) -> tuple[str, ...]:
    """Raise ValueError if two splits share some of their videos. Equal lists, as for a trial, give a note."""
    notes = []
    files = {
        split: distinct(file_key(path) for listed in lists for path in listed.paths)
        for split, lists in stored.items()
        if len(stored) > 1
    }
    for one, other in combinations(sorted(files, key=("train", "validation", "test").index), 2):
        shared = np.intersect1d(files[one], files[other], assume_unique=True)
        if len(shared) == len(files[one]) == len(files[other]):
            notes.append(f"{one} and {other} list the same videos")
        elif len(shared):
            listed, path = next(
                (listed, path) for listed in stored[other] for path in listed.paths if hash(file_key(path)) in shared
            )
            raise ValueError(f"{listed.source}: {path} is in {other} but also in {one}; one split is allowed")
    return tuple(notes)


def label_notes(stored: Mapping[Split, Sequence[VideoList]], file_key: FileKeys) -> tuple[str, ...]:
    """Notes on videos that are listed with several labels."""
    notes = []
    for split, lists in stored.items():
        rows = [
            (file_key(path), label_value(label))
            for listed in lists
            for path, label in zip(listed.paths, listed.labels if len(listed.labels) else (), strict=False)
        ]
        more = len(distinct("\n".join(row) for row in rows)) - len(distinct(path for path, _ in rows))
        if more:
            notes.append(f"{split}: {more:,} of the labels belong to videos that also have another label")
    return tuple(notes)
