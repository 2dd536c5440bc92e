"""What a submitted run leaves for `jepa jobs` in its directory: job.json, and a line for each attempt."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Attempts:
    """The attempts of a run at being finished: `attempts.jsonl` in its directory, a line for each begin and end."""

    def __init__(self, run_dir: Path, job_id: str, enabled: bool) -> None:
        self.run_dir, self.job_id, self.enabled = run_dir, job_id, enabled

    def begin(self, hosts: Sequence[str]) -> None:
        """Note that an attempt begins."""
        self._write({"begin": time.time(), "hosts": list(hosts), "pid": os.getpid()})

    def end(self, how: str) -> None:
        """Note how it ended: finished, requeued, stopped, or failed with the reason."""
        self._write({"end": time.time(), "how": how})

    def count(self) -> int:
        """Attempts of this job so far."""
        return sum("begin" in line for line in read_attempts(self.run_dir) if line["job_id"] == self.job_id)

    def _write(self, values: dict[str, Any]) -> None:
        if self.enabled:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            with (self.run_dir / "attempts.jsonl").open("a") as file:
                file.write(json.dumps({"job_id": self.job_id, **values}) + "\n")


def read_attempts(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of attempts.jsonl; a last line cut short is left out."""
    path = run_dir / "attempts.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def write_job(run_dir: Path, content: dict[str, Any]) -> None:
    """Write job.json at once."""
    run_dir.mkdir(parents=True, exist_ok=True)
    aside = run_dir / "job.json.partial"
    aside.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(aside, run_dir / "job.json")  # noqa: PTH105 - atomic


def read_job(run_dir: Path) -> dict[str, Any]:
    """The content of job.json; empty for a run that was never submitted."""
    path = run_dir / "job.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content
