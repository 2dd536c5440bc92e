"""Which captions belong to which image, for millions of them."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jepa.modality import Split
from modalities.storage.packed import PackedStrings, StringPacker

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
UNKNOWN, CONTRADICTED = -1, -2  # of splits and labels


@dataclass(frozen=True)
class Row:
    """What one line, or one entry, says of an image; no captions is possible, and then others may have some."""

    image: str
    captions: Sequence[str]
    split: Split | None = None
    label: str | None = None


@dataclass(frozen=True, eq=False)
class CaptionTable:
    """Images in the order of their first row, the rows of each, and what could not be understood.

    `order[starts[i] : starts[i + 1]]` are the rows of image i. A fault belongs to a split, as an image does.
    """

    files: Sequence[tuple[Path, str]]  # path, and how a place in it is called: "line {}"
    names: PackedStrings  # of the image, by row
    captions: PackedStrings  # by row; empty where a row has none
    places: NDArray[np.int64]  # by row: file, place in it [R, 2]
    order: NDArray[np.int64]  # [R]
    starts: NDArray[np.int64]  # [images + 1]
    splits: NDArray[np.int32]  # [images], places in SPLITS
    labels: NDArray[np.int32]  # [images], places in label_names
    label_names: Sequence[str]
    fault_sources: PackedStrings
    fault_reasons: PackedStrings
    fault_splits: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def name(self, image: int) -> str:
        """The path of an image, as it is written."""
        return self.names[int(self.order[self.starts[image]])]

    def captions_of(self, image: int) -> tuple[str, ...]:
        """The captions of an image, in the order of their rows, each once."""
        rows = self.order[self.starts[image] : self.starts[image + 1]].tolist()
        return tuple(dict.fromkeys(text for row in rows if (text := self.captions[row])))

    def source(self, image: int) -> str:
        """Where an image is first named."""
        return _place(self.files, self.places[self.order[self.starts[image]]])


class CaptionRows:
    """Gathers rows as they are read; `table` then brings those of an image together."""

    def __init__(self) -> None:
        self._files: list[tuple[Path, str]] = []
        self._file_split: Split | None = None
        self._names, self._captions = StringPacker(), StringPacker()
        self._keys, self._places = array("Q"), array("q")
        self._splits, self._labels, self._label_names = array("b"), array("i"), dict[str, int]()
        self._fault_sources, self._fault_reasons, self._fault_splits = StringPacker(), StringPacker(), array("b")

    def begin(self, path: Path, unit: str, split: Split | None) -> None:
        """Go on with this file, whose places are called `unit`, as in "line {}"; split: of rows that state none."""
        self._files.append((path, unit))
        self._file_split = split

    def add(self, place: int, row: Row) -> None:
        """Add what stands at a place of the file; one row of the table a caption, or one without any."""
        # 64 bits: two names of twelve million are taken for one in one of 250,000 data sets.
        digest = blake2b(row.image.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        key, split = int.from_bytes(digest, "big"), split_code(row.split or self._file_split)
        label = self._label_names.setdefault(row.label, len(self._label_names)) if row.label else UNKNOWN
        for caption in row.captions or ("",):
            self._names.append(row.image)
            self._captions.append(caption)
            self._keys.append(key)
            self._places.extend((len(self._files) - 1, place))
            self._splits.append(split)
            self._labels.append(label)

    def fault(self, where: str, reason: str) -> None:
        """Add a bad sample: what it would have told is not known, its split only where the file says it."""
        self._fault_sources.append(f"{self._files[-1][0]}, {where}")
        self._fault_reasons.append(reason)
        self._fault_splits.append(split_code(self._file_split or "train"))

    def table(self) -> CaptionTable:
        """All rows, by image; ValueError where they name no image, have no caption, or disagree on splits."""
        files = ", ".join(str(path) for path, _ in self._files[:3])
        if not self._keys:
            raise ValueError(f"no images are named in {files}")
        if not len(self._captions.buffer):
            raise ValueError(f"no image has a caption in {files}")
        order, starts = _grouped(np.frombuffer(self._keys, dtype=np.uint64))
        places = np.frombuffer(self._places, dtype=np.int64).reshape(-1, 2)
        return CaptionTable(
            files=self._files,
            names=(names := self._names.packed()),
            captions=self._captions.packed(),
            places=places,
            order=order,
            starts=starts,
            splits=self._image_splits(order, starts, places, names),
            labels=_common(np.frombuffer(self._labels, dtype=np.int32), order, starts),
            label_names=list(self._label_names),
            fault_sources=self._fault_sources.packed(),
            fault_reasons=self._fault_reasons.packed(),
            fault_splits=np.array(self._fault_splits, dtype=np.int32),
        )

    def _image_splits(
        self, order: NDArray[np.int64], starts: NDArray[np.int64], places: NDArray[np.int64], names: PackedStrings
    ) -> NDArray[np.int32]:
        """The split of each image, all train where none is stated; an image of two splits would be learnt by heart."""
        stated = np.array(self._splits, dtype=np.int32)
        if (stated == UNKNOWN).all():
            return np.zeros(len(starts) - 1, dtype=np.int32)
        if (stated == UNKNOWN).any():
            row = int(np.argmax(stated == UNKNOWN))
            raise ValueError(f"{_place(self._files, places[row])}: no split is given, unlike elsewhere")
        if not (stated == split_code("train")).any():
            raise ValueError(
                f"{', '.join(str(path) for path, _ in self._files[:3])}: no image is in the training split"
            )
        splits = _common(stated, order, starts)
        if (splits == CONTRADICTED).any():
            image = int(np.argmax(splits == CONTRADICTED))
            rows = order[starts[image] : starts[image + 1]]
            row = int(rows[stated[rows] != stated[rows[0]]][0])
            first, second = SPLITS[stated[rows[0]]], SPLITS[stated[row]]
            where = _place(self._files, places[row])
            raise ValueError(f"{where}: {names[row]} is in {second}, elsewhere in {first}; one split is allowed")
        return splits


def split_code(split: Split | None) -> int:
    """The place of a split in SPLITS."""
    return SPLITS.index(split) if split else UNKNOWN


def _place(files: Sequence[tuple[Path, str]], place: NDArray[np.int64]) -> str:
    path, unit = files[int(place[0])]
    return f"{path}, {unit.format(int(place[1]))}"


def _grouped(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys [R]  ->  rows group by group [R], where each group starts and the last one ends [groups + 1].

    Groups are in the order of their first row, rows of a group in their own.
    """
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    group = rank[group]
    return np.argsort(group, kind="stable"), np.concatenate([[0], np.cumsum(np.bincount(group))])


def _common(values: NDArray[np.int32], order: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int32]:
    """What the rows of each image agree on: unknown where none knows it, contradicted where two differ."""
    greatest = np.maximum.reduceat(values[order], starts[:-1])
    known = np.where(values == UNKNOWN, np.iinfo(np.int32).max, values)
    least = np.minimum.reduceat(known[order], starts[:-1])
    return np.where((greatest == UNKNOWN) | (least == greatest), greatest, CONTRADICTED).astype(np.int32)
