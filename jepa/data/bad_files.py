"""Unreadable samples: counted, listed and limited in number."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from jepa.console import UNSAFE, shown
from jepa.disk import writing
from jepa.errors import UserError

# A leading quote, or a character that `shown` escapes; but bytes that are not UTF-8 are written as they are.
_UNSAFE = re.compile(f'^"|(?![\udc80-\udcff]){UNSAFE}')


class DataError(UserError, ValueError):
    """The data cannot be used as configured; the message is one sentence for the user."""


class BadFiles:
    """Lists every unreadable sample once in a file of the run directory.

    Each line is the sample, a tab and the reason. Bytes of a name that are not UTF-8 are written as they are. A name
    that would break the line is written as a JSON string, in quotes; `read_bad_files` reads all of them back.
    """

    def __init__(self, path: Path, samples: int, max_fraction: float) -> None:
        self.path, self.samples, self.max_fraction = path, samples, max_fraction
        self.sources: set[str] = set()  # of this process alone: files listed earlier may have been repaired

    def add(self, bad: Sequence[tuple[str, str]]) -> None:
        """Add (source, reason) pairs; raises DataError once they exceed `max_fraction` of all samples."""
        new = {source: reason for source, reason in bad if source not in self.sources}
        if not new:
            return
        self.sources.update(new)
        listed = {source for source, _ in read_bad_files(self.path)}
        with writing(self.path), self.path.open("a", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            for source in [source for source in new if source not in listed]:
                file.write(f"{_quoted(source)}\t{shown(' '.join(new[source].split()))}\n")
        if len(self.sources) > self.max_fraction * self.samples:
            raise DataError(
                f"{len(self.sources)} of {self.samples} samples cannot be read, more than data.max_bad_fraction="
                f"{self.max_fraction} allows; they are listed in {self.path}"
            )

    def summary(self) -> str:
        """How many samples the file lists, from all processes and attempts of the run; empty if there are none."""
        count = len(read_bad_files(self.path))
        return f"{count} of {self.samples} samples could not be read; they are listed in {self.path}" if count else ""


def read_bad_files(path: Path) -> list[tuple[str, str]]:
    """Source and reason of every sample in a list of bad files; empty if there is none."""
    if not path.exists():
        return []
    lines = path.read_text("utf-8", "surrogateescape").split("\n")
    pairs = (line.partition("\t") for line in lines if line)
    return [(_unquoted(source), reason) for source, _, reason in pairs]


def _quoted(source: str) -> str:
    return json.dumps(source) if _UNSAFE.search(source) else source


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text)) if text.startswith('"') else text
    except ValueError:
        return text  # a plain name in a list of an earlier version
