"""Samples in tar files, as the webdataset package writes and reads them.

Shards are indexed and read at random places instead of being streamed through a shuffle buffer. Which sample comes at
which step then depends on the index alone, and an interrupted run resumes exactly where it stopped.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa.data.summary import SplitSummary, counted, digest
from jepa.modality import BadSampleError, Label, Sample, Split
from modalities.storage.folders import FileKind, check_folder, walk
from modalities.storage.labels import NO_CLASSES, UNLABELLED, Classes, classes_of
from modalities.storage.layout import find_layout
from modalities.storage.opened import Opened
from modalities.storage.packed import PackedStrings
from modalities.storage.shard_index import Shard, index_of
from modalities.storage.splits import carved_split, files_by_split, named_files, split_source

_TAR = FileKind("shards", (".tar",))


class ShardSamples:
    """Samples decoded from members of shards; `entries` holds a row (shard, entry) per sample."""

    def __init__(
        self,
        shards: Sequence[Shard],
        entries: NDArray[np.int64],
        classes: Classes,
        decode: Callable[..., Any],
        summary: SplitSummary | None = None,
    ) -> None:
        self.summary = summary
        self.shards, self.decode = shards, decode
        self.class_numbers = [_class_numbers(shard, classes) for shard in shards]
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        number, entry = self.entries[index].tolist()
        shard, source = self.shards[number], self.source(index)
        if entry in shard.damage:
            raise BadSampleError(source, shard.damage[entry])
        offset, size, _ = shard.members[entry].tolist()
        (data,) = _read(shard.path, [(offset, size)], source)
        return Sample(self.decode(data, name=source), self.labels_of(index))

    def labels_of(self, index: int) -> dict[str, Label]:
        """The labels of a sample, without reading it."""
        shard, entry = self.entries[index].tolist()
        label = int(self.shards[shard].members[entry, 2])
        number = UNLABELLED if label == UNLABELLED else int(self.class_numbers[shard][label])
        return {} if number == UNLABELLED else {"class": number}

    def source(self, index: int) -> str:
        """Name of a sample in messages: path of the shard and name of the member."""
        number, entry = self.entries[index].tolist()
        return f"{self.shards[number].path}/{self.shards[number].names[entry]}".rstrip("/")

    def digest(self) -> str:
        """A digest of the names and contents of the tar files, as far as their indexes tell."""
        names = PackedStrings(shard.path.name for shard in self.shards)
        members = (part for shard in self.shards for part in (*shard.names.buffers(), shard.members.tobytes()))
        return digest(*names.buffers(), *members, self.entries.tobytes())

    def companions(self, index: int) -> list[bytes]:
        """Contents of the sample's companions, in the order of FileKind.companions; empty for a missing one."""
        number, entry = self.entries[index].tolist()
        return _read(self.shards[number].path, self.shards[number].companions[entry].tolist(), self.source(index))


def open_shards(
    root: Path,
    split: Split,
    kind: FileKind,
    decode: Callable[..., Any],
    seed: int | None,
    opened: Opened | None = None,
    labels: bool = True,
) -> tuple[ShardSamples, tuple[str, ...]]:
    """One split of the samples in the tar files at `root`, and the class names (storage.labels), () if unlabelled.

    decode: called as decode(contents of a member, name=its name in messages); returns the inputs of a sample.

    `root` is a folder of tar files: with subfolders named after splits; or with such words in the file names
    (train-000.tar); otherwise all files are one training set, from which splits are carved. Or it is one tar file, or a
    pattern such as `a_train-*.tar`; then only these files are read, and as other splits those that differ from them in
    the word for the split alone.
    Samples are ordered by shard, then as stored. storage.shard_index says which members are one sample.
    The label is in `<key>.cls`, or in `<key>.json` under "label", "cls" or "class". A shard that is cut off gives the
    samples before the damage and one bad sample for the rest.
    Carved samples are held out from training if they have labels or companions. labels: false ignores the labels.
    Raises ValueError if no sample is usable, or for a label that the training set lacks.
    """
    stored, beside = _stored_shards(root)
    source, carve = split_source(list(stored), split)
    training = [_index(path, kind) for path in stored["train"]]
    shards = [_index(path, kind) for path in stored[source]]
    _check_usable(shards, kind)
    classes = _classes(training) if labels else NO_CLASSES
    held_out = bool(classes.names or kind.companions)
    parts: dict[Split, NDArray[np.int64]] = {}
    if carve and (split != "train" or held_out):
        parts = (opened or Opened()).once((root, carve), lambda: _carved(shards, carve, seed))
    entries = parts[split] if parts else _all_rows(shards)
    passed_over: Counter[str] = sum((Counter(_passed_over(shard)) for shard in shards), Counter())
    many = f"{len(shards):,} tar files below {root if root.is_dir() else root.parent}"
    summary = SplitSummary(
        kind.noun,
        f"in {many if len(shards) > 1 else shards[0].path}",
        classes.names,
        passed_over=passed_over + (beside if split == "train" else Counter()),
        notes=_notes(shards) + kind.advice(passed_over),
    ).of_split(split, carve, {each: len(parts[each]) for each in carve} if held_out else {})
    return ShardSamples(shards, entries, classes, decode, summary), classes.names


def _passed_over(shard: Shard) -> dict[str, int]:
    return {ending or "without ending": count for ending, count in shard.passed_over.items()}


def _notes(shards: Sequence[Shard]) -> tuple[str, ...]:
    """A sentence on the samples that will be bad ones."""
    count = sum(len(shard.damage) for shard in shards)
    return (f"unusable samples: {count:,}; the first: {_first_damage(shards)}",) if count else ()


def _first_damage(shards: Sequence[Shard]) -> str:
    """Where and why a sample cannot be used."""
    shard = next(shard for shard in shards if shard.damage)
    entry, reason = next(iter(shard.damage.items()))
    return f"{f'{shard.path}/{shard.names[entry]}'.rstrip('/')}: {reason}"


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
    if count := sum(len(shard.damage) for shard in shards):
        raise ValueError(f"no usable {kind.noun} in {paths}; the first of {count} bad samples: {_first_damage(shards)}")
    passed: Counter[str] = sum((Counter(_passed_over(shard)) for shard in shards), Counter())
    found = "; ".join((f"found: {counted(passed) or 'nothing'}", *kind.advice(passed)))
    raise ValueError(f"no {kind.noun} in {paths}; {found}")


def _carved(shards: Sequence[Shard], carve: tuple[Split, ...], seed: int | None) -> dict[Split, NDArray[np.int64]]:
    """Rows (shard, entry) of a training set by split, after carving the splits of `carve` out of it."""
    rows = {split: array("q") for split in ("train", *carve)}
    for number, shard in enumerate(shards):
        for entry, name in enumerate(shard.names):
            rows[carved_split(f"{shard.path.name}/{name}", carve, seed)].extend((number, entry))
    return {split: np.array(of_split, dtype=np.int64).reshape(-1, 2) for split, of_split in rows.items()}


def _all_rows(shards: Sequence[Shard]) -> NDArray[np.int64]:
    """Rows (shard, entry) of all entries."""
    counts = [len(shard.names) for shard in shards]
    entries = np.concatenate([np.arange(count) for count in counts])
    return np.stack([np.repeat(np.arange(len(counts)), counts), entries], axis=1)


def _read(path: Path, members: Iterable[tuple[int, int]], source: str) -> list[bytes]:
    """Contents of members, given their offsets and sizes."""
    try:
        with path.open("rb") as file:
            return [file.read(size) if size and file.seek(offset) >= 0 else b"" for offset, size in members]
    except OSError as error:
        raise BadSampleError(source, error.strerror or str(error)) from error


def _stored_shards(root: Path) -> tuple[dict[Split, list[Path]], Counter[str]]:
    """The tar files at `root` by split, sorted by path, and what lies beside them, counted by ending."""
    if root.is_file():
        if root.suffix.lower() != ".tar":
            raise ValueError(f"data root {root} is not a .tar file; compressed ones do not allow random access")
        return named_files(root), Counter()
    if root.suffix == ".tar" and root.parent.is_dir() and (matching := named_files(root))["train"]:
        return matching, Counter()
    check_folder(root)
    layout = find_layout(root, _TAR)
    folders = {split: layout.base / name for split, name in layout.splits.items()}
    beside = Counter(layout.beside)
    found = {split: [folder / path for path in walk(folder, _TAR, beside)] for split, folder in folders.items()}
    if not found["train"]:
        raise FileNotFoundError(f"no .tar files below {root}; compressed ones do not allow random access")
    return found if len(found) > 1 else files_by_split(found["train"], f"{root}"), beside


def _index(path: Path, kind: FileKind) -> Shard:
    status = path.stat()
    return index_of(path, status.st_size, status.st_mtime_ns, frozenset(kind.extensions), kind.companions)
