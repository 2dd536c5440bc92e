"""Rendered splits of the embedded worlds on disk: each is rendered once, on all cores."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from modalities.storage.generated import reserve, write_once


@dataclass(frozen=True, kw_only=True)
class RenderJob:
    """Items to render: each core runs `python -m module folder *arguments chunk...` for some of the chunks."""

    name: str  # of the folder, before the digest of the key
    title: str  # of the progress bar
    key: tuple[int, ...]  # everything that changes a byte
    module: str
    arguments: tuple[int, ...]
    count: int
    chunk: int  # items
    create: Callable[[Path], None]  # puts empty files of the right shape into a folder


class MappedArrays:
    """Arrays of a folder, memory-mapped. Only their names are pickled; unpickling maps them again."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, names
        self._arrays: dict[str, NDArray[Any]] = {name: np.load(folder / name, mmap_mode="r") for name in names}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __reduce__(self) -> tuple[type, tuple[Path, Sequence[str]]]:
        return MappedArrays, (self.folder, self.names)


def check_split(seed: int, split: str, count: int, most: int, noun: str) -> None:
    """Raise ValueError for a seed or a number of items that a split cannot have."""
    if seed < 0:
        raise ValueError(f"scenes.seed is {seed}; it must not be negative")
    if not 0 < count <= most:
        raise ValueError(f"scenes.{split} is {count}; a split has 1 to {most} {noun}")


def rendered_folder(cache_dir: Path, job: RenderJob) -> Path:
    """The folder with the rendered items; they are rendered first if it does not exist."""
    digest = blake2b(repr(job.key).encode(), digest_size=8).hexdigest()

    def write(folder: Path) -> None:
        job.create(folder)
        for path in folder.iterdir():
            reserve(path)
        _render(folder, job)

    return write_once(cache_dir / f"{job.name}-{digest}", write)


def _render(folder: Path, job: RenderJob) -> None:
    """Render with one program per core.

    Not with a pool: its processes would import the caller's main script again, and threads would share one lock.
    All programs report progress through one pipe. It breaks when this process ends, which ends them too.
    """
    chunks = [str(chunk) for chunk in range(-(-job.count // job.chunk))]
    workers = min(_cores(), len(chunks))
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **single, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    command = [sys.executable, "-m", job.module, str(folder.absolute()), *map(str, job.arguments)]
    reading_end, writing_end = os.pipe()
    running: list[subprocess.Popen[bytes]] = []
    try:
        for worker in range(workers):
            of_worker = [*command, *chunks[worker::workers]]
            running.append(subprocess.Popen(of_worker, stdin=subprocess.DEVNULL, stdout=writing_end, env=environment))
        os.close(writing_end)
        with os.fdopen(reading_end) as lines, Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task(job.title, total=job.count)
            for line in lines:
                progress.advance(task, int(line))
        failed = [code for process in running if (code := process.wait())]
    finally:
        for process in running:
            process.kill()
            process.wait()
    if failed:
        raise ChildProcessError(
            f"rendering into {folder} failed in {len(failed)} of {workers} processes; see their errors above"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
