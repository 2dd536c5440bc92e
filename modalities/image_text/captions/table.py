"""A table of captions grouped by image, compact enough for millions of them."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jepa.modality import Split
from modalities.storage.packed import PackedStrings, StringPacker
from modalities.storage.paths import FileKeys

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
UNKNOWN, CONTRADICTED = -1, -2  # codes of splits and labels


@dataclass(frozen=True)
class CaptionEntry:
    """One line or entry about an image. It may have no captions if other entries of the image have some."""

    image: str
    captions: Sequence[str]
    split: Split | None = None
    label: str | None = None


@dataclass(frozen=True, eq=False)
class CaptionTable:
    """Images in the order of their first row, the rows of each, and malformed entries (faults).

    `order[starts[i] : starts[i + 1]]` are the rows of image i. Faults belong to a split, as images do.
    """

    files: Sequence[tuple[Path, str]]  # path, and format of a location in it, such as "line {}"
    names: PackedStrings  # image, by row
    captions: PackedStrings  # by row, possibly empty
    locations: NDArray[np.int64]  # [R, 2], by row: file, location in it
    order: NDArray[np.int64]  # [R]
    starts: NDArray[np.int64]  # [images + 1]
    splits: NDArray[np.int32]  # [images], indices in SPLITS
    labels: NDArray[np.int32]  # [images], indices in label_names
    label_names: Sequence[str]
    fault_sources: PackedStrings
    fault_reasons: PackedStrings
    fault_splits: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def name(self, image: int) -> str:
        """The path of an image, as written."""
        return self.names[int(self.order[self.starts[image]])]

    def source(self, image: int) -> str:
        """File and location where an image is first named."""
        return _location(self.files, self.locations[self.order[self.starts[image]]])


class CaptionTableBuilder:
    """Collects entries as they are read; `table` groups them by image."""

    def __init__(self, folder: Path = Path()) -> None:
        """folder: that image paths are relative to."""
        self._file_key = FileKeys(folder)
        self._files: list[tuple[Path, str]] = []
        self._file_split: Split | None = None
        self._names, self._captions = StringPacker(), StringPacker()
        self._keys, self._locations = array("Q"), array("q")
        self._splits, self._labels, self._label_names = array("b"), array("i"), dict[str, int]()
        self._fault_sources, self._fault_reasons, self._fault_splits = StringPacker(), StringPacker(), array("b")

    def begin(self, path: Path, unit: str, split: Split | None) -> None:
        """Start a file. unit: format of its locations, such as "line {}"; split: of entries that state none."""
        self._files.append((path, unit))
        self._file_split = split

    def add(self, location: int, entry: CaptionEntry) -> None:
        """Add an entry of the file: one row per caption, or one row without a caption."""
        # 64 bits: with twelve million names, two of them collide in one of 250,000 data sets.
        digest = blake2b(self._file_key(entry.image).encode("utf-8", "surrogateescape"), digest_size=8).digest()
        key, split = int.from_bytes(digest, "big"), split_code(entry.split or self._file_split)
        label = self._label_names.setdefault(entry.label, len(self._label_names)) if entry.label else UNKNOWN
        for caption in entry.captions or ("",):
            self._names.append(entry.image)
            self._captions.append(caption)
            self._keys.append(key)
            self._locations.extend((len(self._files) - 1, location))
            self._splits.append(split)
            self._labels.append(label)

    def fault(self, location: str, reason: str) -> None:
        """Add a bad sample; its split is that of the file, by default train."""
        self._fault_sources.append(f"{self._files[-1][0]}, {location}")
        self._fault_reasons.append(reason)
        self._fault_splits.append(split_code(self._file_split or "train"))

    def table(self) -> CaptionTable:
        """The table; raises ValueError without any image or caption, or if splits contradict each other."""
        files = ", ".join(str(path) for path, _ in self._files[:3])
        if not self._keys:
            raise ValueError(f"no images are listed in {files}")
        if not len(self._captions.buffer):
            faults, reasons = self._fault_sources.packed(), self._fault_reasons.packed()
            first = f"; the first of {len(faults)} bad entries: {faults[0]}: {reasons[0]}" if len(faults) else ""
            raise ValueError(f"no image has a caption in {files}{first}")
        order, starts = _grouped(np.frombuffer(self._keys, dtype=np.uint64))
        locations = np.frombuffer(self._locations, dtype=np.int64).reshape(-1, 2)
        return CaptionTable(
            files=self._files,
            names=(names := self._names.packed()),
            captions=self._captions.packed(),
            locations=locations,
            order=order,
            starts=starts,
            splits=self._image_splits(order, starts, locations, names),
            labels=_common(np.frombuffer(self._labels, dtype=np.int32), order, starts),
            label_names=list(self._label_names),
            fault_sources=self._fault_sources.packed(),
            fault_reasons=self._fault_reasons.packed(),
            fault_splits=np.array(self._fault_splits, dtype=np.int32),
        )

    def _image_splits(
        self, order: NDArray[np.int64], starts: NDArray[np.int64], locations: NDArray[np.int64], names: PackedStrings
    ) -> NDArray[np.int32]:
        """The split of each image; all are train if none is stated. An image in two splits is an error."""
        stated = np.array(self._splits, dtype=np.int32)
        if (stated == UNKNOWN).all():
            return np.zeros(len(starts) - 1, dtype=np.int32)
        if (stated == UNKNOWN).any():
            row = int(np.argmax(stated == UNKNOWN))
            raise ValueError(f"{_location(self._files, locations[row])}: no split is given, but others have one")
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
            location = _location(self._files, locations[row])
            raise ValueError(f"{location}: {names[row]} is in {second} but also in {first}; one split is allowed")
        return splits


def split_code(split: Split | None) -> int:
    """Index of a split in SPLITS, UNKNOWN for None."""
    return SPLITS.index(split) if split else UNKNOWN


def _location(files: Sequence[tuple[Path, str]], location: NDArray[np.int64]) -> str:
    path, unit = files[int(location[0])]
    return f"{path}, {unit.format(int(location[1]))}"


def _grouped(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys [R]  ->  rows ordered by group [R], and where groups start, with the end of the last [groups + 1].

    Groups are in the order of their first rows; rows of a group stay in order.
    """
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    group = rank[group]
    return np.argsort(group, kind="stable"), np.concatenate([[0], np.cumsum(np.bincount(group))])


def _common(values: NDArray[np.int32], order: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int32]:
    """The value that the rows of each image agree on; UNKNOWN if no row has one, CONTRADICTED if two differ."""
    greatest = np.maximum.reduceat(values[order], starts[:-1])
    known = np.where(values == UNKNOWN, np.iinfo(np.int32).max, values)
    least = np.minimum.reduceat(known[order], starts[:-1])
    return np.where((greatest == UNKNOWN) | (least == greatest), greatest, CONTRADICTED).astype(np.int32)
