"""Splits of the embedded world on disk: rendered once, by all cores, and never half."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Work:
    """Items to be rendered by `python -m module folder *arguments chunk...`, on every core some of the chunks."""

    name: str  # of the folder, before the digest of the key
    title: str  # of the progress bar
    key: tuple[int, ...]  # everything that changes a byte
    module: str
    arguments: tuple[int, ...]
    count: int
    chunk: int  # items
    create: Callable[[Path], None]  # puts files of the right shape into a folder


class MappedArrays:
    """Arrays of a folder, mapped from disk. Pickles as the names alone: whoever unpickles it opens them again."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, names
        self._arrays: dict[str, NDArray[Any]] = {name: np.load(folder / name, mmap_mode="r") for name in names}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __reduce__(self) -> tuple[type, tuple[Path, Sequence[str]]]:
        return MappedArrays, (self.folder, self.names)


def check_split(seed: int, split: str, count: int, most: int, what: str) -> None:
    """Raise ValueError for a seed or a number of items of a split that no world has."""
    if seed < 0:
        raise ValueError(f"scenes.seed is {seed}; it must not be negative")
    if not 0 < count <= most:
        raise ValueError(f"scenes.{split} is {count}; a split has 1 to {most} {what}")


def done(cache_dir: Path, work: Work) -> Path:
    """The folder with the results of some work, which is done now if it is not there.

    It gets its name when it is complete, so that what a killed process leaves is never taken for a cache. Of several
    processes that ask at once one renders and the others wait.
    """
    digest = blake2b(repr(work.key).encode(), digest_size=8).hexdigest()
    folder = cache_dir / f"{work.name}-{digest}"
    if folder.is_dir():
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(cache_dir / f"{folder.name}.lock", fallback_to_soft=False):  # the system drops it with the process
        if folder.is_dir():
            return folder
        for abandoned in cache_dir.glob(f"{folder.name}.part-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=cache_dir))
        try:
            work.create(part)
            _render(part, work)
            part.chmod(0o755)
            part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _render(folder: Path, work: Work) -> None:
    """Render with a program on every core.

    Programs rather than a pool: a pool would import the caller's main script again, and threads would share one lock.
    All write their progress to one pipe, which breaks, and ends them, when this process is gone.
    """
    chunks = [str(chunk) for chunk in range(-(-work.count // work.chunk))]
    workers = min(_cores(), len(chunks))
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **single, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    command = [sys.executable, "-m", work.module, str(folder.absolute()), *map(str, work.arguments)]
    reports, report = os.pipe()
    running = []
    try:
        for worker in range(workers):
            mine = [*command, *chunks[worker::workers]]
            running.append(subprocess.Popen(mine, stdin=subprocess.DEVNULL, stdout=report, env=environment))
        os.close(report)
        with os.fdopen(reports) as lines, Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task(work.title, total=work.count)
            for line in lines:
                progress.advance(task, int(line))
        failed = [code for process in running if (code := process.wait())]
    finally:
        for process in running:
            process.kill()
            process.wait()
    if failed:
        raise RuntimeError(
            f"rendering into {folder} failed in {len(failed)} of {workers} processes; see their errors above"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
