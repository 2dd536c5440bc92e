"""Samples that cannot be read: counted, listed, and limited in number."""

from collections.abc import Sequence
from pathlib import Path

from jepa.errors import UserError


class DataError(UserError, ValueError):
    """The data cannot be used as configured; its message is one sentence for the user."""


class BadFiles:
    """Samples that cannot be read, listed once each in a file of the run directory."""

    def __init__(self, path: Path, samples: int, max_fraction: float) -> None:
        self.path, self.samples, self.max_fraction = path, samples, max_fraction
        self.met: set[str] = set()  # by this process: what an earlier one listed may have been repaired since

    def add(self, bad: Sequence[tuple[str, str]]) -> None:
        """Note sources with their reasons; raises DataError when there are more than `max_fraction` of all samples."""
        new = {source: reason for source, reason in bad if source not in self.met}
        if not new:
            return
        self.met.update(new)
        lines = self.path.read_text("utf-8", "surrogateescape").splitlines() if self.path.exists() else []
        listed = {line.split("\t")[0] for line in lines}
        with self.path.open("a", encoding="utf-8", errors="surrogateescape") as file:
            for source in [source for source in new if source not in listed]:
                file.write(f"{source}\t{' '.join(new[source].split())}\n")
        if len(self.met) > self.max_fraction * self.samples:
            raise DataError(
                f"{len(self.met)} of {self.samples} samples cannot be read, more than data.max_bad_fraction="
                f"{self.max_fraction} allows; they are listed in {self.path}"
            )
