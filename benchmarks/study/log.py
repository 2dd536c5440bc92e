"""The log of a study: a file of JSON lines, one per trial, to which several processes append at once."""

import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def key_of(identity: Mapping[str, Any]) -> str:
    """Name of a trial by all that decides its outcome."""
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=6).hexdigest()


def append(path: Path, record: Record) -> None:
    """Add a record, unless one with its key is there; a line that a kill cut short is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        if record["key"] in _records(text):
            return
        file.write(("\n" if text and not text.endswith("\n") else "") + json.dumps(record) + "\n")


def read(path: Path) -> dict[str, Record]:
    """All records by key, in the order in which they were made."""
    return _records(path.read_text()) if path.exists() else {}


def _records(text: str) -> dict[str, Record]:
    records = {}
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut short by a kill: the trial is not logged, so it is made again
        records[record["key"]] = record
    return records


class Watched:
    """A log that is parsed again only when its time or size has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: tuple[int, int] | None = None
        self._records: dict[str, Record] = {}

    def records(self) -> dict[str, Record]:
        """All records by key, as `read`."""
        found = self.path.stat() if self.path.exists() else None
        state = (found.st_mtime_ns, found.st_size) if found else None
        if state != self._state:
            self._state, self._records = state, read(self.path)
        return self._records
