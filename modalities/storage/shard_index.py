"""The index of one tar file: which members are the input, the label and the companions of each sample.

The key of a member is its name without the last ending, and members of one key are one sample: `a.b.jpg`, `a.b.cls`.
A name may also have a field before its ending, as the webdataset package writes it:
- `x.image.jpg` belongs to `x.cls` if neither `x.image` has a label or companion nor `x` an input of its own;
- `x.mask.png` is passed over if `x` has an input of its own, such as `x.jpg`.
What cannot be paired for certain is a bad sample: a key with two inputs or two members of one ending, a `.cls` and a
`.json` that disagree. Members that belong to no sample are counted by their endings.
"""

import json
import re
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from modalities.storage.labels import UNLABELLED, is_number, label_value, read_label
from modalities.storage.packed import PackedStrings
from modalities.storage.tar_files import TarDamageError, members

_META = re.compile(r"__[^/]*__($|/)")  # webdataset skips these
_LABEL_ENDINGS = (".cls", ".json")  # in order of precedence
_LABEL_KEYS = ("label", "cls", "class")
_FIELD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Shard:
    """The index of one tar file. Damage is an entry too: a bad sample whose reason is in `damage`."""

    path: Path
    names: PackedStrings  # of the members that hold the inputs
    members: np.ndarray[tuple[int, int], np.dtype[np.int64]]  # [entries, 3]: offset, size and index in `labels`
    companions: np.ndarray[tuple[int, int, int], np.dtype[np.int64]]  # [entries, endings, 2]: offset and size
    labels: tuple[str, ...]  # those that occur, as written
    damage: Mapping[int, str]
    passed_over: Mapping[str, int]  # members that belong to no sample, by ending


def index_of(path: Path, extensions: frozenset[str], companions: tuple[str, ...]) -> Shard:
    """Read the headers and the labels of a tar file."""
    reader, damage = _Reader(extensions, companions), ""
    with path.open("rb") as file:
        try:
            for member in members(file, path.stat().st_size):
                reader.add(member, file)
        except TarDamageError as error:
            damage = str(error)
            reader.drop_last()
    samples = reader.samples()
    if damage:
        samples.append(_Group("", inputs=[("", 0, 1)], fault=damage))
    labels: dict[str, int] = {}
    usable = [sample.label if not sample.fault else "" for sample in samples]
    codes = [labels.setdefault(label, len(labels)) if label else UNLABELLED for label in usable]
    endings = [sample.companions.get(ending, (0, 0)) for sample in samples for ending in companions]
    rows = [(*sample.inputs[0][1:], code) for sample, code in zip(samples, codes, strict=True)]
    return Shard(
        path,
        PackedStrings(sample.inputs[0][0] for sample in samples),
        np.array(rows, dtype=np.int64).reshape(-1, 3),
        np.array(endings, dtype=np.int64).reshape(len(samples), len(companions), 2),
        tuple(labels),
        {number: sample.fault for number, sample in enumerate(samples) if sample.fault},
        dict(reader.passed_over),
    )


class _Group:
    """The members of one key, as far as they have been read. fault: the reason why it is a bad sample, or ""."""

    __slots__ = ("companions", "fault", "inputs", "key", "label", "label_source")

    def __init__(self, key: str, inputs: list[tuple[str, int, int]] | None = None, fault: str = "") -> None:
        self.key, self.fault = key, fault
        self.inputs = inputs or []  # name, offset, size
        self.companions: dict[str, tuple[int, int]] = {}  # offset and size, by ending
        self.label = self.label_source = ""


class _Reader:
    """Collects the members of a tar file by key."""

    def __init__(self, extensions: frozenset[str], companions: tuple[str, ...]) -> None:
        self.extensions, self.wanted_companions = extensions, companions
        self.known = extensions | {*_LABEL_ENDINGS, *companions}
        self.groups: dict[str, _Group] = {}  # in the order of the file
        self.passed_over: Counter[str] = Counter()

    def add(self, member: tarfile.TarInfo, file: BinaryIO) -> None:
        """Add a member to the group of its key: an input, a label or a companion."""
        name = member.name
        path = name.removeprefix("./")
        base = path.rfind("/") + 1
        if member.isdir() or path.startswith(".", base) or (path.startswith("__") and _META.match(path)):
            return
        dot = path.rfind(".", base)
        stem, ending = (path[:dot], path[dot:].lower()) if dot > 0 else (path, "")
        if ending not in self.known:
            self.passed_over[ending] += 1
            return
        group = self.groups.get(stem)
        if group is None:
            group = self.groups[stem] = _Group(stem)
        if not (is_plain := member.type in tarfile.REGULAR_TYPES and not member.issparse()):
            group.fault = group.fault or _irregular(member)
        if ending in self.extensions:
            group.inputs.append((name, member.offset_data, max(member.size, 1)))
        elif ending in group.companions:
            group.fault = group.fault or f"key '{stem}' has more than one {ending}"
        else:
            group.companions[ending] = member.offset_data, member.size
            if is_plain and ending in _LABEL_ENDINGS:
                file.seek(member.offset_data)
                _add_label(group, name, ending, file.read(member.size))

    def drop_last(self) -> None:
        """Drop the last sample of a file that is cut off; it may lack its label."""
        if not self.groups:
            return
        key, _ = self.groups.popitem()
        while self.groups and next(reversed(self.groups)).rpartition(".")[0] == key:  # such as x.image of x
            self.groups.popitem()

    def samples(self) -> list[_Group]:
        """The groups with inputs. All that the other groups hold is counted as passed over."""
        self._join_fields()
        found = []
        for group in self.groups.values():
            if not group.inputs:
                owner, _, field = group.key.rpartition(".")
                prefix = f".{field}" if owner in self.groups and self.groups[owner].inputs else ""
                self.passed_over.update(f"{prefix}{ending}" for ending in group.companions)
                continue
            if len(group.inputs) > 1:
                names = ", ".join([name for name, _, _ in group.inputs[:5]])
                group.fault = f"key '{group.key}' has {len(group.inputs)} inputs: {names}"
            found.append(group)
        return found

    def _join_fields(self) -> None:
        """Join `x.image.jpg` to the label and companions of `x`; pass over `x.mask.png` beside `x.jpg`."""
        fields: dict[str, list[_Group]] = {}  # by the key of the sample that they may belong to
        for group in self.groups.values():
            key = group.key.rpartition(".")[0]
            if group.inputs and not group.companions and key in self.groups:
                fields.setdefault(key, []).append(group)
        for key, groups in fields.items():
            owner = self.groups[key]
            if owner.inputs:
                self._pass_over(key, groups)
            elif owner.label or owner.fault or any(ending in owner.companions for ending in self.wanted_companions):
                _join(owner, groups)
                del self.groups[key]

    def _pass_over(self, key: str, groups: list[_Group]) -> None:
        for group in groups:
            field = group.key[len(key) + 1 :]
            if _FIELD.fullmatch(field):
                endings = (name.rpartition(".")[2].lower() for name, _, _ in group.inputs)
                self.passed_over.update(f".{field}.{ending}" for ending in endings)
                del self.groups[group.key]


def _join(owner: _Group, groups: list[_Group]) -> None:
    """Give a group with one input the label and companions of its owner; with several inputs, that is ambiguous."""
    names = ", ".join(group.inputs[0][0] for group in groups[:5])
    ambiguous = f"key '{owner.key}' has {len(groups)} inputs: {names}" if len(groups) > 1 else ""
    for group in groups:
        group.fault = group.fault or owner.fault or ambiguous
        group.label, group.companions = owner.label, owner.companions


def _irregular(member: tarfile.TarInfo) -> str:
    if member.issparse():
        return f"{member.name} is stored as a sparse file; write the tar file without --sparse"
    if member.islnk() or member.issym():
        return f"{member.name} is a link to {member.linkname}; write the tar file with --dereference --hard-dereference"
    return f"{member.name} is not a file"


def _add_label(group: _Group, name: str, ending: str, data: bytes) -> None:
    """Read the label of a group; one that cannot be read or contradicts another is its fault."""
    try:
        label = _cls_label(data) if ending == ".cls" else _json_label(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        group.fault = group.fault or f"unreadable {'label in ' if ending == '.cls' else ''}{name}: {reason}"
        return
    if label and group.label and _contradict(label, group.label):
        group.fault = group.fault or f"labels differ: {group.label} in {group.label_source}, {label} in {name}"
    if label and (ending == ".cls" or not group.label):
        group.label, group.label_source = label, name


def _contradict(label: str, other: str) -> bool:
    """Whether two labels differ; a number and a name may say the same."""
    return is_number(label) == is_number(other) and label_value(label) != label_value(other)


def _cls_label(data: bytes) -> str:
    if not data.strip():
        raise ValueError("it is empty")
    return read_label(_decoded(data))


def _json_label(data: bytes) -> str:
    """The first whole number under one of the usual keys, otherwise the first label of another kind; "" without."""
    try:
        content = json.loads(data)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    if not isinstance(content, dict):
        return ""
    values = [content[key] for key in _LABEL_KEYS if content.get(key) is not None]
    return read_label(next((value for value in values if type(value) is int), values[0] if values else None))


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
