"""Samples in tar files, as the webdataset package writes and reads them.

Shards are indexed and read at random places instead of being streamed through a shuffle buffer. Which sample comes at
which step then depends on the index alone, and an interrupted run resumes exactly where it stopped.
"""

import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from jepa.modality import BadSampleError, Sample, Split
from modalities.storage.folders import FileKind, check_folder, folder_splits, walk
from modalities.storage.packed import PackedStrings
from modalities.storage.splits import carved_split, files_by_split, split_source

_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")  # webdataset's rule: the key ends at the first dot of the name
_META = re.compile(r"__[^/]*__($|/)")  # webdataset skips these
_LABEL_KEYS = ("label", "cls", "class")
_UNLABELLED = -1
_TAR = FileKind("shards", (".tar",))


@dataclass(frozen=True)
class Shard:
    """The index of one tar file. Damage is an entry too: a bad sample whose reason is in `damage`."""

    path: Path
    names: PackedStrings  # of the members that hold the inputs
    members: np.ndarray[tuple[int, int], np.dtype[np.int64]]  # [entries, 3]: offset, size and label
    companions: np.ndarray[tuple[int, int, int], np.dtype[np.int64]]  # [entries, endings, 2]: offset and size
    damage: dict[int, str]


class ShardSamples:
    """Samples decoded from members of shards; `entries` holds a row (shard, entry) per sample."""

    def __init__(
        self, shards: Sequence[Shard], entries: Iterable[NDArray[np.int64]], decode: Callable[..., Any]
    ) -> None:
        self.shards, self.decode = shards, decode
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
        return Sample(self.decode(data, name=source), {} if label == _UNLABELLED else {"class": label})

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
    """One split of the samples in the tar files at `root`, and the class names (numbers), () if unlabelled.

    decode: called as decode(contents of a member, name=its name in messages); returns the inputs of a sample.

    `root` is one tar file, or a folder of them: with the subfolders train, val (valid, validation) and test; or with
    these words in the file names (train-000.tar); otherwise all files are one training set, from which splits are
    carved. Samples are ordered by shard, then as stored. The label is in `<key>.cls`, or in `<key>.json` under "label",
    "cls" or "class". A shard that is cut off gives the samples before the damage and one bad sample for the rest.
    Carved samples are held out from training if they have labels or companions.
    """
    stored = _stored_shards(root)
    source, carve = split_source(list(stored), split)
    training = [_index(path, kind) for path in stored["train"]]
    shards = [_index(path, kind) for path in stored[source]]
    labels = [shard.members[:, 2].max(initial=_UNLABELLED) for shard in training]
    classes = tuple(map(str, range(int(max(labels)) + 1)))
    if not any(len(shard.names) > len(shard.damage) for shard in shards):
        raise ValueError(f"no {kind.noun} in {', '.join(str(shard.path) for shard in shards[:3])}")
    held_out = carve if split != "train" or classes or kind.companions else ()
    entries = [_entries_of_split(number, shard, held_out, split, seed) for number, shard in enumerate(shards)]
    return ShardSamples(shards, entries, decode), classes


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
    if root.is_file() and root.suffix == ".tar":
        return {"train": [root]}
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
    return _index_of(path, status.st_size, status.st_mtime_ns, frozenset(kind.extensions), kind.companions)


@cache  # every split needs the same index, which depends on the file only
def _index_of(path: Path, size: int, _modified: int, extensions: frozenset[str], companions: tuple[str, ...]) -> Shard:
    """Read the headers and the labels of a tar file of `size` bytes."""
    by_key: dict[str, _Entry] = {}  # in the order of the file
    with path.open("rb") as file:
        try:
            for member in _members(file, size):
                _add_member(member, file, by_key, extensions)
        except tarfile.TarError as error:
            if by_key:
                by_key.popitem()  # the last sample may lack its label
            by_key[""] = _Entry(size=1, damage=f"damaged tar file: {error}")
    entries = [entry for entry in by_key.values() if entry.size]
    endings = [entry.members.get(ending, (0, 0)) for entry in entries for ending in companions]
    return Shard(
        path,
        PackedStrings(entry.name for entry in entries),
        np.array([(entry.offset, entry.size, entry.label) for entry in entries], dtype=np.int64).reshape(-1, 3),
        np.array(endings, dtype=np.int64).reshape(len(entries), len(companions), 2),
        {number: entry.damage for number, entry in enumerate(entries) if entry.damage},
    )


@dataclass
class _Entry:
    """One sample of a shard, as far as it has been read; the size is 0 until its input is found."""

    name: str = ""
    offset: int = 0
    size: int = 0
    label: int = _UNLABELLED
    damage: str = ""
    members: dict[str, tuple[int, int]] = field(default_factory=dict)  # offset and size, by ending


def _members(file: BinaryIO, size: int) -> Iterator[tarfile.TarInfo]:
    """The complete members of a tar file; raises TarError if it is cut off."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.offset_data + member.size > size:
                raise tarfile.ReadError(f"cut off within {member.name}")
            yield member
        file.seek(archive.offset)  # tarfile takes garbage after the first header for the end
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no end mark at byte {archive.offset}")


def _add_member(member: tarfile.TarInfo, file: BinaryIO, by_key: dict[str, _Entry], extensions: frozenset[str]) -> None:
    """Add a member to the entry of its key: the input, its label or a companion."""
    parts = _MEMBER.fullmatch(member.name)
    if parts is None or not member.isreg() or _META.match(member.name):
        return
    entry, ending = by_key.setdefault(parts[1], _Entry()), parts[2].lower()
    entry.members[f".{ending}"] = member.offset_data, member.size
    if f".{ending}" in extensions and not entry.name:
        entry.name, entry.offset, entry.size = member.name, member.offset_data, max(member.size, 1)
    elif ending in ("cls", "json"):
        file.seek(member.offset_data)
        data = file.read(member.size)
        try:
            entry.label = int(data) if ending == "cls" else _json_label(data, entry.label)
        except ValueError:
            entry.damage = f"unreadable {'label in ' if ending == 'cls' else ''}{member.name}"


def _json_label(data: bytes, known: int) -> int:
    """The first whole number under one of the usual keys, unless the label is known."""
    content = json.loads(data)
    values = [content.get(key) for key in _LABEL_KEYS] if isinstance(content, dict) and known == _UNLABELLED else []
    return next((value for value in values if type(value) is int), known)
