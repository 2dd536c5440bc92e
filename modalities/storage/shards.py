"""Samples in tar files, as the webdataset package writes and reads them.

Shards are indexed and read at random places instead of being streamed through a shuffle buffer. Which sample comes at
which step then depends on the index alone, and an interrupted run resumes exactly where it stopped.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa.data.summary import SplitSummary, counted, digest
from jepa.disk.columns import Columns
from jepa.modality import BadSampleError, Label, Sample, Split
from modalities.storage.folders import FileKind, check_folder, walk
from modalities.storage.index import Request, SplitIndex, packed
from modalities.storage.labels import NO_CLASSES, UNLABELLED, Classes, classes_of
from modalities.storage.layout import find_layout
from modalities.storage.opened import Opened
from modalities.storage.packed import PackedStrings
from modalities.storage.shard_index import Shard, index_of
from modalities.storage.splits import SPLIT_SEED, carved_codes, files_by_split, named_files, split_source

_TAR = FileKind("shards", (".tar",))


class ShardSamples:
    """Samples decoded from the members of tar files that an index names."""

    def __init__(self, found: SplitIndex, decode: Callable[..., Any]) -> None:
        self.found, self.decode, self.summary = found, decode, found.summary
        self.paths = [Path(path) for path in found.strings("shards")]
        self.names, self.rows = found.strings("names"), found.columns["rows"]
        self.damage = dict(zip(found.columns["damaged"].tolist(), found.strings("damage"), strict=True))

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardSamples, (self.found, self.decode)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        shard, offset, size, _ = self.rows[index].tolist()
        source, number = self.source(index), range(len(self))[index]
        if number in self.damage:
            raise BadSampleError(source, self.damage[number])
        (data,) = _read(self.paths[shard], [(offset, size)], source)
        return Sample(self.decode(data, name=source), self.labels_of(index))

    def labels_of(self, index: int) -> dict[str, Label]:
        """The labels of a sample, without reading it."""
        number = int(self.rows[index, 3])
        return {} if number == UNLABELLED else {"class": number}

    def source(self, index: int) -> str:
        """Name of a sample in messages: path of the shard and name of the member."""
        return f"{self.paths[int(self.rows[index, 0])]}/{self.names[index]}".rstrip("/")

    name_of = source

    def digest(self) -> str:
        """A digest of the names and contents of the tar files, as far as their indexes tell."""
        return self.found.digest

    def companions(self, index: int) -> list[bytes]:
        """Contents of the sample's companions, in the order of FileKind.companions; empty for a missing one."""
        path = self.paths[int(self.rows[index, 0])]
        return _read(path, self.found.columns["companions"][index].tolist(), self.source(index))


def open_shards(
    root: Path,
    split: Split,
    kind: FileKind,
    decode: Callable[..., Any],
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
    opened, (stored, beside) = opened or Opened(), _stored_shards(root)
    settings = {"kind": kind.rules, "seed": SPLIT_SEED, "labels": labels, "splits": list(stored)}
    request = Request("shards", root, split, settings, [path for paths in stored.values() for path in paths])
    found = opened.indexed(request, lambda: _found(root, stored, beside, split, kind, labels, opened))
    return ShardSamples(found, decode), found.classes


def _found(
    root: Path,
    stored: Mapping[Split, Sequence[Path]],
    beside: Counter[str],
    split: Split,
    kind: FileKind,
    labels: bool,
    opened: Opened,
) -> SplitIndex:
    """Read the headers of one split, see `open_shards`."""
    source, carve = split_source(list(stored), split)
    training, shards = ([_index(path, kind, opened) for path in stored[name]] for name in ("train", source))
    _check_usable(shards, kind)
    classes = _classes(training) if labels else NO_CLASSES
    held_out = bool(classes.names or kind.companions)
    parts: dict[Split, NDArray[np.int64]] = {}
    if carve and (split != "train" or held_out):
        parts = opened.once((root, carve), lambda: _carved(shards, carve))
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
    return SplitIndex(
        len(entries), _columns(shards, entries, classes), classes.names, summary, _digest(shards, entries)
    )


def _columns(shards: Sequence[Shard], entries: NDArray[np.int64], classes: Classes) -> Columns:
    """The columns of an index. `rows` [samples, 4]: shard, offset, size, class."""
    bounds = np.searchsorted(entries[:, 0], np.arange(len(shards) + 1))
    own = [entries[start:end, 1] for start, end in pairwise(bounds)]
    names, rows, companions, damage = [], [], [], dict[int, str]()
    for number, (shard, selected) in enumerate(zip(shards, own, strict=True)):
        members, classes_of_labels = shard.members[selected], _class_numbers(shard, classes)
        labels = np.where(
            members[:, 2] == UNLABELLED, UNLABELLED, np.append(classes_of_labels, UNLABELLED)[members[:, 2]]
        )
        rows.append(np.column_stack([np.full(len(selected), number), members[:, :2], labels]))
        names.append(shard.names.take(selected))
        companions.append(shard.companions[selected])
        places = (
            {entry: int(bounds[number]) + place for place, entry in enumerate(selected.tolist())}
            if shard.damage
            else {}
        )
        damage |= {places[entry]: reason for entry, reason in shard.damage.items() if entry in places}
    return Columns(
        {
            **packed("shards", PackedStrings(str(shard.path) for shard in shards)),
            **packed("names", PackedStrings.joined(names)),
            **packed("damage", PackedStrings(damage.values())),
            "damaged": np.fromiter(damage, np.int64, len(damage)),
            "rows": np.concatenate(rows),
            "companions": np.concatenate(companions),
            "has_companions": np.array([shard.companions[..., 1].any() for shard in shards]),
        }
    )


def _digest(shards: Sequence[Shard], entries: NDArray[np.int64]) -> str:
    names = PackedStrings(shard.path.name for shard in shards)
    members = (part for shard in shards for part in (*shard.names.buffers(), shard.members.tobytes()))
    return digest(*names.buffers(), *members, entries.tobytes())


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


def _carved(shards: Sequence[Shard], carve: tuple[Split, ...]) -> dict[Split, NDArray[np.int64]]:
    """Rows (shard, entry) of a training set by split, after carving the splits of `carve` out of it."""
    rows = _all_rows(shards)
    codes = [
        carved_codes(shard.names.encoded(), len(shard.names), carve, prefix=f"{shard.path.name}/") for shard in shards
    ]
    return {split: rows[np.concatenate(codes) == code] for code, split in enumerate(("train", *carve))}


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


def _index(path: Path, kind: FileKind, opened: Opened) -> Shard:
    read = partial(index_of, path, frozenset(kind.extensions), kind.companions)
    return opened.once(("shard", path), read)
