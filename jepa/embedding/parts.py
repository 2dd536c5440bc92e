"""The unfinished output: a folder with parts, each of some batches, that a second start completes.

Every file is written atomically, so a kill loses only what was not yet written. The batches of a data set are the same
however many processes share them and however often they were killed, and so are the bits of their vectors.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jepa.config import ConfigError, Tree, differences
from jepa.disk import WriteError, write_text
from jepa.disk.columns import Columns, DamagedError, read_columns, write_columns

_NAME = re.compile(r"part-(\d+)-(\d+)-(\d+)\.columns")


class Part(NamedTuple):
    """A file with the rows of the batches from `first` to before `end`; rows: how many can be read."""

    first: int
    end: int
    rows: int
    path: Path


@dataclass(frozen=True)
class PartsFolder:
    """The folder of the parts of an output. It belongs to `output`, beside which it lies."""

    output: Path

    @property
    def path(self) -> Path:
        return self.output.with_name(f"{self.output.name}.parts")

    @property
    def windows(self) -> Path:
        """The file with the windows of all samples, if there are windows."""
        return self.path / "windows.columns"

    @property
    def _settings(self) -> Path:
        return self.path / "settings.json"

    @property
    def _joined(self) -> Path:
        return self.path / "joined.json"

    def has_begun(self) -> bool:
        """Whether the folder holds what a start has left."""
        return self._settings.exists()

    def begin(self, facts: Tree, anew: bool) -> bool:
        """Start or continue an output of these facts -> whether it continues.

        anew: whether parts of other facts are removed. Otherwise they raise ConfigError, which says what differs.
        """
        known, facts = self._known(), json.loads(json.dumps(facts))
        if known is not None and (changed := differences(known, facts)):
            if not anew:
                raise ConfigError(
                    f"{self.path} holds an unfinished output with other settings: {', '.join(changed)}; repeat the "
                    "former command to complete it, or start anew with --overwrite"
                )
            known = None
        if known is None:
            self.remove()
            write_text(self._settings, json.dumps(facts), self._settings.with_suffix(".partial"))
        return known is not None

    def write(self, first: int, end: int, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the rows of some batches."""
        name = f"part-{first:09}-{end:09}-{len(arrays['rows'])}.columns"
        write_columns(self.path / name, facts, arrays)

    def parts(self) -> list[Part]:
        """All parts in order."""
        found = ((_NAME.fullmatch(path.name), path) for path in self.path.glob("part-*.columns"))
        return sorted(Part(int(name[1]), int(name[2]), int(name[3]), path) for name, path in found if name)

    def remove_damaged(self) -> None:
        """Remove parts that cannot be read, such as after a loss of power."""
        for part in self.parts():
            try:
                read_columns(part.path)
            except (DamagedError, ValueError):
                part.path.unlink()

    def missing(self, batches: int) -> NDArray[np.int64]:
        """The batches that no part holds."""
        is_missing = np.ones(batches, np.bool_)
        for part in self.parts():
            is_missing[part.first : part.end] = False
        return np.flatnonzero(is_missing)

    def contents(self) -> Iterator[tuple[dict[str, Any], Columns]]:
        """Facts and arrays of each part, in order."""
        for part in self.parts():
            try:
                yield read_columns(part.path)
            except DamagedError as error:
                part.path.unlink()
                raise WriteError(f"{part.path} is damaged ({error}) and was removed; start again") from error

    def announce(self, finished: Path) -> None:
        """Note that this file is about to become the output."""
        content = {"facts": self._known(), "output": _version(finished)}
        write_text(self._joined, json.dumps(content), self._joined.with_suffix(".partial"))

    def is_joined(self) -> bool:
        """Whether the output holds what these parts held: a kill came before all of them were removed."""
        return self._joined_facts() is not None

    def remove(self) -> None:
        """Remove all files: first the parts, last what says whether they were joined."""
        for path in (*self.path.glob("part-*"), self._settings):
            path.unlink(missing_ok=True)
        for path in self.path.glob("*/"):
            shutil.rmtree(path)
        for path in (self.windows, self._joined):
            path.unlink(missing_ok=True)

    def _joined_facts(self) -> Tree | None:
        """The facts of the output, if it was joined from this folder."""
        try:
            content = json.loads(self._joined.read_text())
            facts: Tree | None = content["facts"] if content["output"] == _version(self.output) else None
        except (OSError, ValueError, TypeError):
            return None
        return facts

    def _known(self) -> Tree | None:
        """The facts of what the folder holds or has become."""
        try:
            known: Tree = json.loads(self._settings.read_text())
        except FileNotFoundError:
            return self._joined_facts()
        return known


def shares(batches: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """Batches in as many consecutive shares as there are processes."""
    return np.array_split(batches, count)


def runs(batches: Sequence[int]) -> Iterator[Sequence[int]]:
    """Batches in groups that follow one another without a gap."""
    edges = [place for place in range(1, len(batches)) if batches[place] != batches[place - 1] + 1]
    for start, end in pairwise([0, *edges, len(batches)] if batches else []):
        yield batches[start:end]


def _version(path: Path) -> list[int]:
    """What tells a file from others that had its name; a new name changes none of it."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]
