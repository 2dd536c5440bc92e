"""Unreadable samples: counted, listed and limited in number."""

from collections.abc import Sequence
from pathlib import Path

from jepa.errors import UserError


class DataError(UserError, ValueError):
    """The data cannot be used as configured; the message is one sentence for the user."""


class BadFiles:
    """Lists every unreadable sample once in a file of the run directory."""

    def __init__(self, path: Path, samples: int, max_fraction: float) -> None:
        self.path, self.samples, self.max_fraction = path, samples, max_fraction
        self.sources: set[str] = set()  # of this process: files listed by an earlier one may have been repaired

    def add(self, bad: Sequence[tuple[str, str]]) -> None:
        """Add (source, reason) pairs; raises DataError once they exceed `max_fraction` of all samples."""
        new = {source: reason for source, reason in bad if source not in self.sources}
        if not new:
            return
        self.sources.update(new)
        lines = self.path.read_text("utf-8", "surrogateescape").splitlines() if self.path.exists() else []
        listed = {line.split("\t")[0] for line in lines}
        with self.path.open("a", encoding="utf-8", errors="surrogateescape") as file:
            for source in [source for source in new if source not in listed]:
                file.write(f"{source}\t{' '.join(new[source].split())}\n")
        if len(self.sources) > self.max_fraction * self.samples:
            raise DataError(
                f"{len(self.sources)} of {self.samples} samples cannot be read, more than data.max_bad_fraction="
                f"{self.max_fraction} allows; they are listed in {self.path}"
            )
