"""Samples of captioned images whose images are files."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa.data.summary import SplitSummary, digest
from jepa.disk.columns import Columns
from jepa.modality import BadSampleError, Label, Sample, Split
from modalities.image_text.captions.rules import NO_CAPTION
from modalities.image_text.captions.table import CONTRADICTED, SPLITS, UNKNOWN, CaptionTable, split_code
from modalities.storage.captioned import CaptionedImage
from modalities.storage.images import Decode
from modalities.storage.index import Request, SplitIndex, packed
from modalities.storage.labels import UNLABELLED, Classes, classes_of, label_value
from modalities.storage.opened import Opened
from modalities.storage.packed import PackedStrings
from modalities.storage.paths import existing_file
from modalities.storage.splits import StoredSplit, carved_codes, split_source

TableInFolder = tuple[CaptionTable, Path]  # images are below the folder
_CHECKED = 100  # images: enough to notice a wrong root, few enough for a slow disk


class CaptionedFiles:
    """The images of an index with their captions; malformed entries (faults) come last."""

    def __init__(self, found: SplitIndex, decode: Decode) -> None:
        self.found, self.decode, self.summary = found, decode, found.summary
        self.names, self.captions = found.strings("names"), found.strings("captions")
        self.starts, self.labels = found.columns["starts"], found.columns["labels"]
        self.fault_sources, self.fault_reasons = found.strings("fault_sources"), found.strings("fault_reasons")

    def __reduce__(self) -> tuple[Any, ...]:
        return CaptionedFiles, (self.found, self.decode)

    def __len__(self) -> int:
        return self.found.count

    def __getitem__(self, index: int) -> Sample:
        image = range(len(self))[index]
        if (fault := image - len(self.names)) >= 0:
            raise BadSampleError(self.fault_sources[fault], self.fault_reasons[fault])
        rows = range(*self.starts[image : image + 2].tolist())
        captions = tuple(dict.fromkeys(text for row in rows if (text := self.captions[row])))
        if not captions:
            raise BadSampleError(self._source(image), NO_CAPTION)
        if self.labels[image] == CONTRADICTED:
            raise BadSampleError(self._source(image), f"{self.names[image]} has different labels")
        pixels = self.decode(existing_file(self.found.folder, self.names[image]))
        return Sample(CaptionedImage(pixels, captions), self.labels_of(image))

    def _source(self, image: int) -> str:
        """File and location where an image is first named."""
        file, location = self.found.columns["locations"][image].tolist()
        path, unit = self.found.strings("files")[file], self.found.strings("units")[file]
        return f"{path}, {unit.format(location)}"

    def name_of(self, index: int) -> str:
        """The path of the image, as written; of a malformed entry its file and location."""
        if (fault := index - len(self.names)) >= 0:
            return self.fault_sources[fault]
        return str((self.found.folder or Path()) / self.names[index])

    def digest(self) -> str:
        """A digest of the images and their order, and of all captions and labels."""
        return self.found.digest

    def labels_of(self, index: int) -> dict[str, Label]:
        """The labels of a sample, without reading it."""
        image = range(len(self))[index]
        number = int(self.labels[image]) if image < len(self.labels) else UNLABELLED
        return {"class": number} if number >= 0 else {}


def open_table(
    request: Request, read: Callable[[], TableInFolder], decode: Decode, labels: bool, opened: Opened | None
) -> StoredSplit:
    """One split of a table, and the class names, () without labels. read: reads the table, unless it is indexed.

    Missing splits are carved from the training set by the names of the images. They are held out from training even
    without labels, because captions are labels too. Faults belong to the training set unless their file has another
    split. labels: false ignores the labels. Raises ValueError for a label that the training set lacks, which no
    classifier could predict.
    """
    opened = opened or Opened()
    once = partial(opened.once, ("table", *request.files), read)
    carved = partial(opened.once, ("carved", *request.files))
    found = opened.indexed(request, lambda: _found(*once(), request.split, labels, carved))
    return StoredSplit(CaptionedFiles(found, decode), found.classes)


def _found(
    table: CaptionTable, folder: Path, split: Split, labels: bool, once: Callable[..., NDArray[np.int8]]
) -> SplitIndex:
    """Choose the images of one split, see `open_table`. once: keeps the carved splits for the next one."""
    source, carve = split_source([SPLITS[code] for code in np.unique(table.splits)], split)
    stored = np.flatnonzero(table.splits == split_code(source))
    parts = {split: stored}
    if carve:
        codes = once(lambda: _carved(table, carve))[stored]
        parts = {each: stored[codes == split_code(each)] for each in {split, *carve}}
    table = table if labels else replace(table, labels=np.full_like(table.labels, UNKNOWN), label_names=())
    _check_labels(table, stored)
    check_images(folder, [table.name(int(image)) for image in spread(stored)])
    faults = np.flatnonzero(table.fault_splits == split_code(split))
    classes = _classes(table)
    where = f"listed in {', '.join(str(path) for path, _ in table.files)}"
    summary = SplitSummary("captioned images", where, classes.names, notes=_notes(table, faults)).of_split(
        split, carve, {each: len(parts[each]) for each in carve}
    )
    columns = _columns(table, parts[split], faults, classes)
    names = _digest(table, np.concatenate([parts[split], -1 - faults]))
    return SplitIndex(len(parts[split]) + len(faults), columns, classes.names, summary, names, folder)


def _columns(table: CaptionTable, images: NDArray[np.int64], faults: NDArray[np.int64], classes: Classes) -> Columns:
    """The columns of an index: `starts` [images + 1] are the rows of `captions` of each image."""
    counts = np.diff(table.starts)[images]
    starts = np.concatenate([[0], np.cumsum(counts)])
    rows = table.order[np.repeat(table.starts[images] - starts[:-1], counts) + np.arange(int(starts[-1]))]
    first = table.order[table.starts[images]]
    # The last two are for CONTRADICTED and UNKNOWN, which count from the end.
    numbers = [*(_number(classes, label) for label in table.label_names), CONTRADICTED, UNLABELLED]
    return Columns(
        {
            **packed("names", table.names.take(first)),
            **packed("captions", table.captions.take(rows)),
            **packed("fault_sources", table.fault_sources.take(faults)),
            **packed("fault_reasons", table.fault_reasons.take(faults)),
            **packed("files", PackedStrings(str(path) for path, _ in table.files)),
            **packed("units", PackedStrings(unit for _, unit in table.files)),
            "starts": starts,
            "locations": table.locations[first],
            "labels": np.array(numbers, dtype=np.int32)[table.labels[images]],
        }
    )


def _digest(table: CaptionTable, items: NDArray[np.int64]) -> str:
    labels = PackedStrings(table.label_names)
    columns = (part for strings in (table.names, table.captions, labels) for part in strings.buffers())
    return digest(*columns, table.order.tobytes(), table.labels.tobytes(), items.tobytes())


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


def _carved(table: CaptionTable, carve: tuple[Split, ...]) -> NDArray[np.int8]:
    """The split of every image after carving these splits."""
    names = table.names.take(table.order[table.starts[:-1]])
    codes = np.array([split_code(split) for split in ("train", *carve)], dtype=np.int8)
    return codes[carved_codes(names.encoded(), len(names), carve)]
