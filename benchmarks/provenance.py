"""Command, machine and commit behind a measurement, and the files of its result: JSON and a Markdown page beside it."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


def provenance(module: str, words: Sequence[str] | None = None) -> dict[str, Any]:
    """Command (of this process, unless `words` are given), hardware, threads and commit of a measurement."""
    command = f"python -m {module} {shlex.join(sys.argv[1:] if words is None else words)}"
    return {"command": command, "hardware": hardware(), "threads": torch.get_num_threads(), "git": commit()}


def heading(source: Mapping[str, Any]) -> str:
    """The same as the first lines of a page."""
    machine = source["hardware"]
    where = f"{machine['cpu']}, {source['threads']} threads, torch {machine['torch']}, commit {source['git']}."
    return f"`{source['command']}`\n\n{where}"


def write(path: Path, record: Mapping[str, Any], page: str) -> None:
    """Write the numbers to `path` and the page to the .md file of the same name; print the page."""
    print(page)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(page.rstrip("\n") + "\n")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    first, *others = (f"| {' | '.join(cells)} |" for cells in (headings, *rows))
    return "\n".join([first, "|" + "---|" * len(headings), *others])


def hardware() -> dict[str, Any]:
    """Model and cores of the CPU, name of the GPU if there is one, version of torch."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
    }


def commit() -> str:
    """Short name of this checkout's commit, with -dirty if files differ from it; empty outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
