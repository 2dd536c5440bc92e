"""The index of a data set: what a source has found for one split, stored so that later starts list nothing.

How a later start knows that the data is as it was, without listing it:
- lists and tables: their sizes, times of change, and contents of their first and last 64 KiB;
- tar files: their names, sizes and times of change;
- folders: the time of change of every folder that was listed, which moves when a name in it comes or goes.
A time within two seconds of the listing proves nothing, as clocks of file systems are coarse; then the data is listed
once more.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from jepa.console import CONSOLE, shown
from jepa.data.summary import SplitSummary
from jepa.disk import replacing
from jepa.disk.columns import Columns, DamagedError, IndexFolder, Streamed, read_columns, write_columns
from jepa.modality import Split
from modalities.storage.packed import PackedStrings

_RULES = 1  # raised when the same files would give other samples
_EDGE = 2**16  # bytes at the start and the end of a list that are compared
_COARSE = 2 * 10**9  # nanoseconds within which a time of change proves nothing
_UNPROVEN = -1
_PATIENCE = 20  # seconds until a file that another machine has written must be visible


class Listed:
    """The folders that a listing has read, and when each had changed last."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}

    def add(self, folder: Path, changed: int) -> None:
        """Note a folder before it is listed; changed: its time in nanoseconds."""
        self._times.setdefault(str(folder), _proven(changed))

    def columns(self) -> dict[str, Any]:
        """The same as arrays."""
        folders = PackedStrings(self._times)
        times = np.fromiter(self._times.values(), np.int64, len(self._times))
        return {"listed": folders.text, "listed_ends": folders.ends, "listed_times": times}


@dataclass(frozen=True)
class SplitIndex:
    """What a source has found for one split.

    count: of samples. columns: arrays, as the source defines them. folder: that paths are relative to. digest: of the
    names of the samples. streamed: further columns, which `split_index` writes or brings into memory.
    """

    count: int
    columns: Columns
    classes: tuple[str, ...]
    summary: SplitSummary
    digest: str
    folder: Path = Path()
    streamed: Mapping[str, Streamed] = field(default_factory=dict)

    def in_memory(self) -> "SplitIndex":
        """The same with all columns as arrays."""
        if not self.streamed:
            return self
        columns = {**self.columns, **{name: array.whole() for name, array in self.streamed.items()}}
        return replace(self, columns=Columns(columns), streamed={})

    def strings(self, name: str) -> PackedStrings:
        """The strings of the columns `name` and `name`_ends."""
        return PackedStrings.of(self.columns[name], self.columns[f"{name}_ends"])


@dataclass(frozen=True)
class Request:
    """What is asked of an index: the split of a source, and all that decides which samples it has.

    files: lists or tar files that are read; without them, the folders that were listed are compared. edges: whether the
    first and last bytes of the files are compared too.
    """

    source: str
    root: Path
    split: Split
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[Path] = ()
    edges: bool = False

    @property
    def file_name(self) -> str:
        """The name of the index, the same for the same request."""
        key = [_RULES, self.source, str(self.root.absolute()), self.split, dict(self.settings)]
        text = json.dumps(key, sort_keys=True, default=sorted)
        return f"{self.split}-{blake2b(text.encode(), digest_size=6).hexdigest()}.index"

    def state(self) -> list[list[Any]]:
        """Name, size, time of change and edges of each file."""
        return [[str(path), *_state(path, self.edges)] for path in self.files]


def packed(name: str, strings: PackedStrings) -> dict[str, Any]:
    """The columns `name` and `name`_ends of strings."""
    return {name: strings.text, f"{name}_ends": strings.ends}


def split_index(place: IndexFolder | None, request: Request, build: Callable[[], SplitIndex]) -> SplitIndex:
    """What is stored for the request if the data is as it was, otherwise what `build` finds, stored if that is allowed.

    Says why a stored index is not used. Raises WriteError, and what `build` raises.
    """
    return _stored_or_built(place, request, build).in_memory()


def _stored_or_built(place: IndexFolder | None, request: Request, build: Callable[[], SplitIndex]) -> SplitIndex:
    if place is None:
        return build()
    name = request.file_name
    if not place.checks:
        return _of_another_process(place, name) if name in place.used else build()
    for folder in () if place.rebuilds else (place.path, *place.also):
        if (found := _stored(place, folder / name, request)) is None:
            continue
        place.used.append(name)
        if folder == place.path or not place.writes:
            return found
        _copy(folder / name, place.path / name)
        return _index_of(*read_columns(place.path / name))
    if not place.writes:
        return build()
    state = [[*each[:2], _proven(each[2]), *each[3:]] for each in request.state()]  # before the files are read
    found = build()
    if found.count < place.least and not place.used:  # of small data only; its other splits may need the same lists
        (place.path / name).unlink(missing_ok=True)
        return found
    facts = {"state": state, "classes": found.classes, "summary": vars(found.summary), "digest": found.digest}
    all_facts = {**facts, "count": found.count, "folder": str(found.folder)}
    write_columns(place.path / name, all_facts, {**found.columns, **found.streamed})
    place.used.append(name)
    return _index_of(*read_columns(place.path / name))


def _of_another_process(place: IndexFolder, name: str) -> SplitIndex:
    """What process 0 has written; disks over a network may take seconds to show it. Raises FileNotFoundError."""
    path = place.path / name
    for _ in range(_PATIENCE * 10):
        if path.exists():
            try:
                return _index_of(*read_columns(path))
            except DamagedError as error:
                raise ValueError(f"{path}, which process 0 has written, is damaged: {error}") from error
        if place.path.exists():
            next(place.path.iterdir(), None)  # makes NFS look again
        time.sleep(0.1)
    raise FileNotFoundError(
        f"{path} is not visible to this process; the run directory must be on a disk that all share"
    )


def _stored(place: IndexFolder, path: Path, request: Request) -> SplitIndex | None:
    """What a file holds; None if it is missing, damaged or of other data, which is said."""
    if not path.exists():
        return None
    try:
        facts, columns = read_columns(path)
    except (DamagedError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        CONSOLE.print(shown(f"the index {path} is damaged ({reason}), so the data is listed again"), style="yellow")
        return None
    if changed := _changed(facts["state"], columns, request):
        if not place.outdated:
            line = f"{changed} has changed since, or just before, the data was indexed, so it is listed again"
            CONSOLE.print(shown(line))
        place.outdated.append(changed)
        return None
    return _index_of(facts, columns)


def _index_of(facts: Mapping[str, Any], columns: Columns) -> SplitIndex:
    summary = dict(facts["summary"])
    if summary["classes"] is not None:
        summary["classes"] = tuple(summary["classes"])
    summary |= {name: tuple(summary[name]) for name in ("shared", "notes")}
    classes, folder = tuple(facts["classes"]), Path(facts["folder"])
    return SplitIndex(facts["count"], columns, classes, SplitSummary(**summary), facts["digest"], folder)


def _changed(state: Sequence[Sequence[Any]], columns: Columns, request: Request) -> str:
    """The first file or folder that is not as it was; empty if all are."""
    now = request.state()
    for before, after in zip(state, now, strict=False):
        if before != after:
            return str(after[0])
    if len(state) != len(now):
        return f"the number of files at {request.root}"
    if "listed" not in columns:
        return ""
    folders = PackedStrings.of(columns["listed"], columns["listed_ends"])
    for folder, time_before in zip(folders, columns["listed_times"].tolist(), strict=True):
        if _time_of(Path(folder)) != time_before:
            return folder
    return ""


def _time_of(folder: Path) -> int | None:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return None


def _state(path: Path, edges: bool) -> list[Any]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, _edges(path, status.st_size) if edges else ""]


def _edges(path: Path, size: int) -> str:
    with path.open("rb") as file:
        start = file.read(_EDGE)
        file.seek(max(0, size - _EDGE))
        return blake2b(start + file.read(_EDGE), digest_size=8).hexdigest()


def _proven(changed: int) -> int:
    return changed if time.time_ns() - changed > _COARSE else _UNPROVEN


def _copy(source: Path, path: Path) -> None:
    """Make the index in the cache that of the run, which all processes see."""
    aside = path.with_name(f"{path.name}.partial")
    with replacing(path, aside):
        aside.unlink(missing_ok=True)
        shutil.copyfile(source, aside)
