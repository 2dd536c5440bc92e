"""Samples of captioned images whose images are files."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jepa.modality import BadSampleError, Sample, Split
from modalities.image_text.captions.rules import NO_CAPTION
from modalities.image_text.captions.table import CONTRADICTED, SPLITS, UNKNOWN, CaptionTable, split_code
from modalities.storage.captioned import CaptionedImage
from modalities.storage.images import decode_image
from modalities.storage.splits import StoredSplit, carved_split, split_source

_CHECKED = 100  # images: enough to notice a wrong root, few enough for a slow disk


class CaptionedFiles:
    """Images of a table with their captions. `items`: indices of images, or of faults, counted down from -1."""

    def __init__(self, table: CaptionTable, folder: Path, items: NDArray[np.int64], min_side: int) -> None:
        self.table, self.folder, self.items, self.min_side = table, folder, items, min_side
        self.class_index = {name: index for index, name in enumerate(_classes(table))}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        image, table = int(self.items[index]), self.table
        if image < 0:
            raise BadSampleError(table.fault_sources[-1 - image], table.fault_reasons[-1 - image])
        captions, label = table.captions_of(image), int(table.labels[image])
        if not captions:
            raise BadSampleError(table.source(image), NO_CAPTION)
        if label == CONTRADICTED:
            raise BadSampleError(table.source(image), f"{table.name(image)} has different labels")
        pixels = decode_image(self.folder / table.name(image), self.min_side)
        labels = {"class": self.class_index[table.label_names[label]]} if self.class_index and label != UNKNOWN else {}
        return Sample(CaptionedImage(pixels, captions), labels)


def open_table(table: CaptionTable, folder: Path, split: Split, min_side: int, seed: int) -> StoredSplit:
    """One split of a table whose images are below `folder`, and the class names, () without labels.

    Missing splits are carved from the training set by the names of the images. They are held out from training even
    without labels, because captions are labels too. Faults belong to the training set unless their file has another
    split. Raises ValueError for a label that the training set lacks, which no classifier could predict.
    """
    source, carve = split_source([SPLITS[code] for code in np.unique(table.splits)], split)
    stored = np.flatnonzero(table.splits == split_code(source))
    _check_labels(table, stored)
    check_images(folder, [table.name(int(image)) for image in spread(stored)])
    images = stored[_carved(table, carve, seed)[stored] == split_code(split)] if carve else stored
    faults = np.flatnonzero(table.fault_splits == split_code(split))
    samples = CaptionedFiles(table, folder, np.concatenate([images, -1 - faults]), min_side)
    return StoredSplit(samples, _classes(table))


def check_images(folder: Path, names: Sequence[str]) -> None:
    """Raise ValueError if none of these images exists."""
    if names and not any_exists(folder, names):
        raise ValueError(f"none of the {len(names)} images checked exists, such as {folder / names[0]}")


def any_exists(folder: Path, names: Sequence[str]) -> bool:
    """Whether at least one of these images exists."""
    return any(_exists(folder / name) for name in names)


def spread(items: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most 100 of the items, evenly spaced."""
    return items[np.linspace(0, len(items) - 1, min(len(items), _CHECKED)).astype(np.int64)]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _check_labels(table: CaptionTable, images: NDArray[np.int64]) -> None:
    classes = set(_classes(table))
    unknown = [code for code in np.unique(table.labels[images]).tolist() if code >= 0]
    unknown = [code for code in unknown if table.label_names[code] not in classes]
    if classes and unknown:
        image = int(images[np.argmax(table.labels[images] == unknown[0])])
        label = table.label_names[unknown[0]]
        raise ValueError(f"{table.source(image)}: label '{label}' is not in the training set")


def _classes(table: CaptionTable) -> tuple[str, ...]:
    """The labels of the training set, sorted; whole numbers by value."""
    codes = np.unique(table.labels[table.splits == split_code("train")])
    names = [table.label_names[code] for code in codes.tolist() if code >= 0]
    return tuple(sorted(names, key=lambda name: (len(name) if name.isdecimal() else 0, name)))


@lru_cache(maxsize=2)  # slow for millions of names, and every split needs it
def _carved(table: CaptionTable, carve: tuple[Split, ...], seed: int) -> NDArray[np.int8]:
    """The split of every image after carving these splits."""
    codes = (split_code(carved_split(table.name(image), carve, seed)) for image in range(len(table)))
    return np.fromiter(codes, dtype=np.int8, count=len(table))
