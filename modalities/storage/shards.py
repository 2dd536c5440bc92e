"""Samples in tar files, as the webdataset package writes and reads them.

Shards are indexed and read at random places instead of being streamed through a shuffle buffer. Which sample comes at
which step then depends on the index alone, and an interrupted run resumes exactly where it stopped.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa.modality import BadSampleError, Sample, Split
from modalities.storage.folders import FileKind, check_folder, folder_splits, walk
from modalities.storage.labels import UNLABELLED, Classes, classes_of
from modalities.storage.shard_index import Shard, index_of
from modalities.storage.splits import carved_split, files_by_split, named_files, split_source

_TAR = FileKind("shards", (".tar",))


class ShardSamples:
    """Samples decoded from members of shards; `entries` holds a row (shard, entry) per sample."""

    def __init__(
        self,
        shards: Sequence[Shard],
        entries: Iterable[NDArray[np.int64]],
        classes: Classes,
        decode: Callable[..., Any],
    ) -> None:
        self.shards, self.decode = shards, decode
        self.class_numbers = [_class_numbers(shard, classes) for shard in shards]
        self.entries = np.concatenate([np.empty((0, 2), dtype=np.int64), *entries])

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        number, entry = self.entries[index].tolist()
        shard, source = self.shards[number], self.source(index)
        if entry in shard.damage:
            raise BadSampleError(source, shard.damage[entry])
        offset, size, label = shard.members[entry].tolist()
        (data,) = _read(shard.path, [(offset, size)], source)
        number = UNLABELLED if label == UNLABELLED else int(self.class_numbers[number][label])
        return Sample(self.decode(data, name=source), {} if number == UNLABELLED else {"class": number})

    def source(self, index: int) -> str:
        """Name of a sample in messages: path of the shard and name of the member."""
        number, entry = self.entries[index].tolist()
        return f"{self.shards[number].path}/{self.shards[number].names[entry]}".rstrip("/")

    def companions(self, index: int) -> list[bytes]:
        """Contents of the sample's companions, in the order of FileKind.companions; empty for a missing one."""
        number, entry = self.entries[index].tolist()
        return _read(self.shards[number].path, self.shards[number].companions[entry].tolist(), self.source(index))


def open_shards(
    root: Path, split: Split, kind: FileKind, decode: Callable[..., Any], seed: int | None
) -> tuple[ShardSamples, tuple[str, ...]]:
    """One split of the samples in the tar files at `root`, and the class names (storage.labels), () if unlabelled.

    decode: called as decode(contents of a member, name=its name in messages); returns the inputs of a sample.

    `root` is a folder of tar files: with the subfolders train, val and test; or with these words in the file names
    (train-000.tar); otherwise all files are one training set, from which splits are carved. Or it is one tar file, or a
    pattern such as `a_train-*.tar`; then only these files are read, and as other splits those that differ from them in
    the word for the split alone.
    Samples are ordered by shard, then as stored. storage.shard_index says which members are one sample.
    The label is in `<key>.cls`, or in `<key>.json` under "label", "cls" or "class". A shard that is cut off gives the
    samples before the damage and one bad sample for the rest.
    Carved samples are held out from training if they have labels or companions.
    Raises ValueError if no sample is usable, or for a label that the training set lacks.
    """
    stored = _stored_shards(root)
    source, carve = split_source(list(stored), split)
    training = [_index(path, kind) for path in stored["train"]]
    shards = [_index(path, kind) for path in stored[source]]
    _check_usable(shards, kind)
    classes = _classes(training)
    held_out = carve if split != "train" or classes.names or kind.companions else ()
    entries = [_entries_of_split(number, shard, held_out, split, seed) for number, shard in enumerate(shards)]
    return ShardSamples(shards, entries, classes, decode), classes.names


def _classes(training: Sequence[Shard]) -> Classes:
    labels = dict.fromkeys(label for shard in training for label in shard.labels)
    try:
        return classes_of(labels)
    except ValueError as error:
        raise ValueError(f"{training[0].path.parent}: {error}") from error


def _class_numbers(shard: Shard, classes: Classes) -> NDArray[np.int64]:
    """The class of each of the shard's labels; UNLABELLED if the training set has no classes."""
    try:
        numbers = [classes.number(label) if classes.names else UNLABELLED for label in shard.labels]
    except ValueError as error:
        raise ValueError(f"{shard.path}: {error}") from error
    return np.array(numbers, dtype=np.int64)


def _check_usable(shards: Sequence[Shard], kind: FileKind) -> None:
    """Raise ValueError unless at least one sample has no damage."""
    if any(len(shard.names) > len(shard.damage) for shard in shards):
        return
    paths = ", ".join(str(shard.path) for shard in shards[:3])
    if damaged := next((shard for shard in shards if shard.damage), None):
        entry, reason = next(iter(damaged.damage.items()))
        count = sum(len(shard.damage) for shard in shards)
        member = f"/{damaged.names[entry]}".rstrip("/")
        raise ValueError(
            f"no usable {kind.noun} in {paths}; the first of {count} bad samples: {damaged.path}{member}: {reason}"
        )
    passed = sum((Counter(shard.passed_over) for shard in shards), Counter())
    found = ", ".join(f"{count:,} {ending or 'without ending'}" for ending, count in passed.most_common(5))
    raise ValueError(f"no {kind.noun} in {paths}; found: {found or 'nothing'}")


def _entries_of_split(
    number: int, shard: Shard, carve: tuple[Split, ...], split: Split, seed: int | None
) -> NDArray[np.int64]:
    """Rows (shard, entry) of a shard's entries that belong to the split; all entries if nothing is carved."""
    entries = [
        entry
        for entry, name in enumerate(shard.names)
        if not carve or carved_split(f"{shard.path.name}/{name}", carve, seed) == split
    ]
    return np.array([(number, entry) for entry in entries], dtype=np.int64).reshape(-1, 2)


def _read(path: Path, members: Iterable[tuple[int, int]], source: str) -> list[bytes]:
    """Contents of members, given their offsets and sizes."""
    try:
        with path.open("rb") as file:
            return [file.read(size) if size and file.seek(offset) >= 0 else b"" for offset, size in members]
    except OSError as error:
        raise BadSampleError(source, error.strerror or str(error)) from error


def _stored_shards(root: Path) -> dict[Split, list[Path]]:
    """The tar files at `root` by split, sorted by path."""
    if root.is_file():
        if root.suffix.lower() != ".tar":
            raise ValueError(f"data root {root} is not a .tar file; compressed ones do not allow random access")
        return named_files(root)
    if root.suffix == ".tar" and root.parent.is_dir() and (matching := named_files(root))["train"]:
        return matching
    check_folder(root)
    folders = folder_splits(root, _TAR)
    if folders != {"train": ""}:
        return {split: [root / name / path for path in walk(root / name, _TAR)] for split, name in folders.items()}
    paths = [root / path for path in walk(root, _TAR)]
    if not paths:
        raise FileNotFoundError(f"no .tar files below {root}; compressed ones do not allow random access")
    return files_by_split(paths, f"{root}")


def _index(path: Path, kind: FileKind) -> Shard:
    status = path.stat()
    return index_of(path, status.st_size, status.st_mtime_ns, frozenset(kind.extensions), kind.companions)
