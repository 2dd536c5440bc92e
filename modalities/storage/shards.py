"""Images, or other encoded inputs, in tar files, as the webdataset package writes and reads them.

Shards are indexed and then read at any place, rather than streamed through a shuffle buffer: so which image comes at
which step follows from the index alone, and a run that was stopped goes on exactly where it was.
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
from modalities.storage.splits import carved_split, files_by_split, serving

_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")  # webdataset's rule: the key ends at the first dot of the name
_META = re.compile(r"__[^/]*__($|/)")  # webdataset skips these
_LABEL_KEYS = ("label", "cls", "class")
_UNLABELLED = -1
_TAR = FileKind("shards", (".tar",))


@dataclass(frozen=True)
class Shard:
    """Where the samples of one tar file lie; a damaged place is an entry too, with what is wrong in `damage`."""

    path: Path
    names: PackedStrings  # of the members that hold the inputs
    places: np.ndarray[tuple[int, int], np.dtype[np.int64]]  # offset, size and label of each
    beside: np.ndarray[tuple[int, int, int], np.dtype[np.int64]]  # offset and size, 0 if missing, by ending of FileKind
    damage: dict[int, str]


class ShardSamples:
    """What `decode` makes of chosen members of some shards; `chosen` holds a row (shard, entry) for each."""

    def __init__(
        self, shards: Sequence[Shard], chosen: Iterable[NDArray[np.int64]], decode: Callable[[bytes, str], Any]
    ) -> None:
        self.shards, self.decode = shards, decode
        self.chosen = np.concatenate([np.empty((0, 2), dtype=np.int64), *chosen])

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Sample:
        number, entry = self.chosen[index].tolist()
        shard, source = self.shards[number], self.source(index)
        if entry in shard.damage:
            raise BadSampleError(source, shard.damage[entry])
        offset, size, label = shard.places[entry].tolist()
        (data,) = _read(shard.path, [(offset, size)], source)
        return Sample(self.decode(data, source), {} if label == _UNLABELLED else {"class": label})

    def source(self, index: int) -> str:
        """What to look for, when a sample is bad."""
        number, entry = self.chosen[index].tolist()
        return f"{self.shards[number].path}/{self.shards[number].names[entry]}".rstrip("/")

    def beside(self, index: int) -> list[bytes]:
        """What is said beside the input, by the endings of FileKind.beside; nothing where there is no such member."""
        number, entry = self.chosen[index].tolist()
        return _read(self.shards[number].path, self.shards[number].beside[entry].tolist(), self.source(index))


def open_shards(
    root: Path, split: Split, kind: FileKind, decode: Callable[[bytes, str], Any], seed: int
) -> tuple[ShardSamples, tuple[str, ...]]:
    """One split of the members of this kind in the tar files at `root`, and their classes, by number, () if unlabelled.

    decode: (contents of a member, name for messages) -> inputs.

    `root` is one tar file or a folder of them: with folders train, val (valid, validation) and test; or with these
    words in the names of the files (train-000.tar); or else one training set to carve from. Order: by shard, then as
    stored. Label: `<key>.cls`, or "label", "cls" or "class" in `<key>.json`. A shard that breaks off gives the samples
    before the damage, and one bad sample for all the rest. What is carved is held out from training where anything is
    known of the inputs, their class or what stands beside them.
    """
    stored = _stored_shards(root)
    part, carve = serving(list(stored), split)
    training = [_index(path, kind) for path in stored["train"]]
    shards = [_index(path, kind) for path in stored[part]]
    labels = [shard.places[:, 2].max(initial=_UNLABELLED) for shard in training]
    classes = tuple(map(str, range(int(max(labels)) + 1)))
    if not any(len(shard.names) > len(shard.damage) for shard in shards):
        raise ValueError(f"no {kind.noun} in {', '.join(str(shard.path) for shard in shards[:3])}")
    held_out = carve if split != "train" or classes or kind.beside else ()
    return ShardSamples(
        shards, [_chosen(number, shard, held_out, split, seed) for number, shard in enumerate(shards)], decode
    ), classes


def _chosen(number: int, shard: Shard, carve: tuple[Split, ...], split: Split, seed: int) -> NDArray[np.int64]:
    """Rows (shard, entry) of those entries of a shard that are in the split, of all of them if nothing is carved."""
    entries = [
        entry
        for entry, name in enumerate(shard.names)
        if not carve or carved_split(f"{shard.path.name}/{name}", carve, seed) == split
    ]
    return np.array([(number, entry) for entry in entries], dtype=np.int64).reshape(-1, 2)


def _read(path: Path, places: Iterable[tuple[int, int]], source: str) -> list[bytes]:
    """The bytes at these offsets, of these sizes."""
    try:
        with path.open("rb") as file:
            return [file.read(size) if size and file.seek(offset) >= 0 else b"" for offset, size in places]
    except OSError as error:
        raise BadSampleError(source, error.strerror or str(error)) from error


def _stored_shards(root: Path) -> dict[Split, list[Path]]:
    """The tar files at `root` by the split that they belong to, sorted by path."""
    if root.is_file() and root.suffix == ".tar":
        return {"train": [root]}
    check_folder(root)
    folders = folder_splits(root, _TAR)
    if folders != {"train": ""}:
        return {split: [root / name / path for path in walk(root / name, _TAR)] for split, name in folders.items()}
    paths = [root / path for path in walk(root, _TAR)]
    if not paths:
        raise FileNotFoundError(f"no .tar files below {root}; compressed ones cannot be read at random")
    return files_by_split(paths, f"{root}")


def _index(path: Path, kind: FileKind) -> Shard:
    status = path.stat()
    return _index_of(path, status.st_size, status.st_mtime_ns, frozenset(kind.extensions), kind.beside)


@cache  # every split asks for the same index, which is a function of the file
def _index_of(path: Path, size: int, _modified: int, extensions: frozenset[str], beside: tuple[str, ...]) -> Shard:
    """Read the headers and the labels of a tar file of `size` bytes."""
    entries: dict[str, _Entry] = {}  # by key, in the order of the file
    with path.open("rb") as file:
        try:
            for member in _members(file, size):
                _note(member, file, entries, extensions)
        except tarfile.TarError as error:
            if entries:
                entries.popitem()  # the last sample may lack its label
            entries[""] = _Entry(size=1, fault=f"damaged tar file: {error}")
    kept = [entry for entry in entries.values() if entry.size]
    return Shard(
        path,
        PackedStrings(entry.name for entry in kept),
        np.array([(entry.offset, entry.size, entry.label) for entry in kept], dtype=np.int64).reshape(-1, 3),
        np.array([entry.beside.get(ending, (0, 0)) for entry in kept for ending in beside], dtype=np.int64).reshape(
            len(kept), len(beside), 2
        ),
        {place: entry.fault for place, entry in enumerate(kept) if entry.fault},
    )


@dataclass
class _Entry:
    """One sample of a shard as far as it has been read; without a size, no input has been seen."""

    name: str = ""
    offset: int = 0
    size: int = 0
    label: int = _UNLABELLED
    fault: str = ""
    beside: dict[str, tuple[int, int]] = field(default_factory=dict)  # offset and size, by ending


def _members(file: BinaryIO, size: int) -> Iterator[tarfile.TarInfo]:
    """The complete members of a tar file, then a TarError if it breaks off."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.offset_data + member.size > size:
                raise tarfile.ReadError(f"cut off within {member.name}")
            yield member
        file.seek(archive.offset)  # tarfile takes any nonsense after the first header for the end
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no end mark at byte {archive.offset}")


def _note(member: tarfile.TarInfo, file: BinaryIO, entries: dict[str, _Entry], extensions: frozenset[str]) -> None:
    """Add what a member says to the entry of its key: the input, its label, or where something else is said of it."""
    parts = _MEMBER.fullmatch(member.name)
    if parts is None or not member.isreg() or _META.match(member.name):
        return
    entry, ending = entries.setdefault(parts[1], _Entry()), parts[2].lower()
    entry.beside[f".{ending}"] = member.offset_data, member.size
    if f".{ending}" in extensions and not entry.name:
        entry.name, entry.offset, entry.size = member.name, member.offset_data, max(member.size, 1)
    elif ending in ("cls", "json"):
        file.seek(member.offset_data)
        data = file.read(member.size)
        try:
            entry.label = int(data) if ending == "cls" else _json_label(data, entry.label)
        except ValueError:
            entry.fault = f"unreadable {'label in ' if ending == 'cls' else ''}{member.name}"


def _json_label(data: bytes, known: int) -> int:
    """The first whole number under one of the usual keys, unless a label is known."""
    content = json.loads(data)
    values = [content.get(key) for key in _LABEL_KEYS] if isinstance(content, dict) and known == _UNLABELLED else []
    return next((value for value in values if type(value) is int), known)
