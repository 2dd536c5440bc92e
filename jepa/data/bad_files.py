"""Unreadable samples: counted, listed and limited in number."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jepa.console import UNSAFE, shown
from jepa.disk import writing
from jepa.disk.locks import exclusive
from jepa.errors import UserError
from jepa.modality import BadSampleError, Samples

# A leading quote, or a character that `shown` escapes; but bytes that are not UTF-8 are written as they are.
_UNSAFE = re.compile(f'^"|(?![\udc80-\udcff]){UNSAFE}')
_WITHOUT_LOCKS = "a bad file may be listed twice, or be missing from the list, if several processes write it at once"


class DataError(UserError, ValueError):
    """The data cannot be used as configured; the message is one sentence for the user."""


class BadFiles:
    """Lists every unreadable sample once in a file of the run directory, and limits their number.

    Each line is the sample, a tab and the reason. Bytes of a name that are not UTF-8 are written as they are. A name
    that would break the line is written as a JSON string, in quotes; `read_bad_files` reads all of them back.

    The list is what all processes and attempts of a run share: it is read only when a process meets a new bad sample.
    earlier: whether the samples that it listed before count as well.
    """

    def __init__(self, path: Path, samples: int, max_fraction: float, earlier: bool = True) -> None:
        self.path, self.samples, self.max_fraction, self.earlier = path, samples, max_fraction, earlier
        self.known: set[str] = set()  # samples that this process has added or seen in the list
        self.added: set[str] = set()
        self.read = 0  # bytes of the list

    def add(self, bad: Sequence[tuple[str, str]]) -> None:
        """Add (source, reason) pairs; raises DataError once they exceed `max_fraction` of all samples."""
        new = {source: reason for source, reason in bad if source not in self.added}
        if not new:
            return
        self.added.update(new)
        with writing(self.path), exclusive(self.path.with_name(".bad_files.lock"), _WITHOUT_LOCKS):
            self._append(new)
        count = len(self.known if self.earlier else self.added)
        if count > self.max_fraction * self.samples:
            raise DataError(
                f"{count} of {self.samples} samples cannot be read, more than data.max_bad_fraction="
                f"{self.max_fraction} allows; they are listed in {self.path}, which you can delete once they are mended"
            )

    def _append(self, new: Mapping[str, str]) -> None:
        """Read what others have listed since the last time, and list the samples that are missing."""
        with self.path.open("a+b") as file:
            if file.seek(0, os.SEEK_END) < self.read:  # somebody has deleted the list
                self.known, self.read = set(), 0
            file.seek(self.read)
            found = file.read()
            self.known.update(source for source, _ in _pairs(found))
            missing = [source for source in new if source not in self.known]
            lines = b"".join(bad_line(source, new[source]) for source in missing)
            cut_short = b"\n" if found and not found.endswith(b"\n") else b""  # by a kill
            file.write((cut_short if lines else b"") + lines)
            self.read = file.tell()
        self.known.update(missing)

    def summary(self) -> str:
        """How many samples the file lists, from all processes and attempts of the run; empty if there are none."""
        count = len({source for source, _ in read_bad_files(self.path)})
        return f"{count} of {self.samples} samples could not be read; they are listed in {self.path}" if count else ""


def bad_line(source: str, reason: str) -> bytes:
    """The line of a sample in a list of bad files."""
    return f"{_quoted(source)}\t{shown(' '.join(reason.split()))}\n".encode("utf-8", "surrogateescape")


def read_bad_files(path: Path) -> list[tuple[str, str]]:
    """Source and reason of every sample in a list of bad files; empty if there is none."""
    if not path.exists():
        return []
    return _pairs(path.read_bytes())


def _pairs(content: bytes) -> list[tuple[str, str]]:
    pairs = (line.partition("\t") for line in content.decode("utf-8", "surrogateescape").split("\n") if line)
    return [(_unquoted(source), reason) for source, _, reason in pairs]


def _quoted(source: str) -> str:
    return json.dumps(source) if _UNSAFE.search(source) else source


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text)) if text.startswith('"') else text
    except ValueError:
        return text  # a plain name in a list of an earlier version


def described(error: BadSampleError, samples: Samples, index: int) -> tuple[str, str]:
    """Name of the sample, which a view may have left out of its error, and reason."""
    return error.source or name_of(samples, index), error.reason


def name_of(samples: Samples, index: int) -> str:
    """The name of a sample, such as its path; its index in brackets if its source has no names."""
    named = getattr(samples, "name_of", None)
    return str(named(index)) if named is not None else f"[{index}]"
