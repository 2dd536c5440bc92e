"""Samples of captioned images whose images are files."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jepa.data.summary import SplitSummary, digest
from jepa.modality import BadSampleError, Label, Sample, Split
from modalities.image_text.captions.rules import NO_CAPTION
from modalities.image_text.captions.table import CONTRADICTED, SPLITS, UNKNOWN, CaptionTable, split_code
from modalities.storage.captioned import CaptionedImage
from modalities.storage.images import Decode
from modalities.storage.labels import UNLABELLED, Classes, classes_of, label_value
from modalities.storage.packed import PackedStrings
from modalities.storage.paths import existing_file
from modalities.storage.splits import StoredSplit, carved_split, split_source

_CHECKED = 100  # images: enough to notice a wrong root, few enough for a slow disk


class CaptionedFiles:
    """Images of a table with their captions. `items`: indices of images, or of faults, counted down from -1."""

    def __init__(
        self,
        table: CaptionTable,
        folder: Path,
        items: NDArray[np.int64],
        decode: Decode,
        summary: SplitSummary | None = None,
    ) -> None:
        self.table, self.folder, self.items, self.decode, self.summary = table, folder, items, decode, summary
        classes = _classes(table)
        self.class_numbers = [_number(classes, label) for label in table.label_names]

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
        pixels = self.decode(existing_file(self.folder, table.name(image)))
        return Sample(CaptionedImage(pixels, captions), self.labels_of(index))

    def digest(self) -> str:
        """A digest of the images and their order, and of all captions and labels."""
        table = self.table
        labels = PackedStrings(table.label_names)
        columns = (part for packed in (table.names, table.captions, labels) for part in packed.buffers())
        return digest(*columns, table.order.tobytes(), table.labels.tobytes(), self.items.tobytes())

    def labels_of(self, index: int) -> dict[str, Label]:
        """The labels of a sample, without reading it."""
        image = int(self.items[index])
        label = int(self.table.labels[image]) if image >= 0 else UNKNOWN
        number = self.class_numbers[label] if label >= 0 else UNLABELLED
        return {} if number == UNLABELLED else {"class": number}


def open_table(
    table: CaptionTable, folder: Path, split: Split, decode: Decode, seed: int, labels: bool = True
) -> StoredSplit:
    """One split of a table whose images are below `folder`, and the class names, () without labels.

    Missing splits are carved from the training set by the names of the images. They are held out from training even
    without labels, because captions are labels too. Faults belong to the training set unless their file has another
    split. labels: false ignores the labels. Raises ValueError for a label that the training set lacks, which no
    classifier could predict.
    """
    source, carve = split_source([SPLITS[code] for code in np.unique(table.splits)], split)
    stored = np.flatnonzero(table.splits == split_code(source))
    parts = {split: stored}
    if carve:
        codes = _carved(table, carve, seed)[stored]
        parts = {each: stored[codes == split_code(each)] for each in {split, *carve}}
    table = table if labels else replace(table, labels=np.full_like(table.labels, UNKNOWN), label_names=())
    _check_labels(table, stored)
    check_images(folder, [table.name(int(image)) for image in spread(stored)])
    faults = np.flatnonzero(table.fault_splits == split_code(split))
    items, classes = np.concatenate([parts[split], -1 - faults]), _classes(table).names
    where = f"listed in {', '.join(str(path) for path, _ in table.files)}"
    summary = SplitSummary("captioned images", where, classes, notes=_notes(table, faults)).of_split(
        split, carve, {each: len(parts[each]) for each in carve}
    )
    return StoredSplit(CaptionedFiles(table, folder, items, decode, summary), classes)


def _notes(table: CaptionTable, faults: NDArray[np.int64]) -> tuple[str, ...]:
    """A sentence on the entries that will be bad samples."""
    if not len(faults):
        return ()
    first = f"{table.fault_sources[int(faults[0])]}: {table.fault_reasons[int(faults[0])]}"
    return (f"malformed entries: {len(faults):,}; the first: {first}",)


def check_images(folder: Path, names: Sequence[str]) -> None:
    """Raise ValueError if none of these images exists."""
    if names and not any_exists(folder, names):
        raise ValueError(f"none of the {len(names)} images checked exists, such as {folder / names[0]}")


def any_exists(folder: Path, names: Sequence[str]) -> bool:
    """Whether at least one of these images exists."""
    return any(_exists(existing_file(folder, name)) for name in names)


def spread(items: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most 100 of the items, evenly spaced."""
    return items[np.linspace(0, len(items) - 1, min(len(items), _CHECKED)).astype(np.int64)]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _check_labels(table: CaptionTable, images: NDArray[np.int64]) -> None:
    classes = _classes(table)
    for code in np.unique(table.labels[images]).tolist() if classes.names else ():
        try:
            classes.number(table.label_names[code] if code >= 0 else "")
        except ValueError as error:
            image = int(images[np.argmax(table.labels[images] == code)])
            raise ValueError(f"{table.source(image)}: {error}") from error


def _number(classes: Classes, label: str) -> int:
    """The class of a label; UNLABELLED for one that only other splits have."""
    return classes.numbers.get(label_value(label), UNLABELLED)


def _classes(table: CaptionTable) -> Classes:
    """The labels of the training set."""
    codes = np.unique(table.labels[table.splits == split_code("train")])
    try:
        return classes_of(table.label_names[code] for code in codes.tolist() if code >= 0)
    except ValueError as error:
        raise ValueError(f"{table.files[0][0]}: {error}") from error


@lru_cache(maxsize=2)  # slow for millions of names, and every split needs it
def _carved(table: CaptionTable, carve: tuple[Split, ...], seed: int) -> NDArray[np.int8]:
    """The split of every image after carving these splits."""
    codes = (split_code(carved_split(table.name(image), carve, seed)) for image in range(len(table)))
    return np.fromiter(codes, dtype=np.int8, count=len(table))
