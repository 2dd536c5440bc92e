"""`python -m crash_points ...` runs `jepa.launch ...`, prints its file operations, and kills it before or within one.

CRASH_PROGRAM in the environment: the module whose `main` runs instead of that of `jepa.launch`.
CRASH_FOLDER in the environment: only operations on files below it count. CRASH_AT: `THREAD:NUMBER`, the operation of a
thread, `main` or `checkpoint`, from 1, before which the process kills itself; a write is cut in the middle. Empty: it
runs to its end.
"""

import io
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

CALLS = ("open", "replace", "rename", "unlink", "remove", "mkdir", "rmdir", "symlink", "link", "fsync")
FOLDER, CRASH_AT = os.environ["CRASH_FOLDER"], os.environ["CRASH_AT"]
ONE_AT_A_TIME = threading.RLock()  # so that the last line printed is the operation that did not happen


class Operations:
    """Counts operations on files of the folder, but not on TensorBoard's, which a thread writes at any time."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def crash_now(self, call: str, path: str) -> bool:
        """Print and count an operation -> whether it is the last one."""
        if not path.startswith(FOLDER) or "/tensorboard" in path:
            return False
        thread = "checkpoint" if threading.current_thread().name.startswith("checkpoint") else "main"
        print(thread, call, path.removeprefix(FOLDER), flush=True)
        self.counts[thread] += 1
        return f"{thread}:{self.counts[thread]}" == CRASH_AT


OPERATIONS = Operations()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def path_of(file: Any, dir_fd: int | None = None, **_: Any) -> str:
    """Path of an argument of a call: a path, perhaps below an open folder, or an open file."""
    opened = Path("/proc/self/fd")
    if isinstance(file, int):
        return str((opened / str(file)).readlink())
    return str(((opened / str(dir_fd)).readlink() if dir_fd else Path.cwd()) / os.fsdecode(file))


def counted(call: str) -> Callable[..., Any]:
    """A function of `os` that counts as an operation."""
    original = getattr(os, call)

    def counting(file: Any, *arguments: Any, **options: Any) -> Any:
        with ONE_AT_A_TIME:
            if OPERATIONS.crash_now(call, path_of(file, **options)):
                die()
            return original(file, *arguments, **options)

    return counting


def counted_open(original: Callable[..., Any]) -> Callable[..., Any]:
    """`open` that counts when a file is to be written, with a file that counts what is written to it."""

    def counting(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+"):
            return original(file, mode, *arguments, **options)
        path = path_of(file)
        with ONE_AT_A_TIME:
            if OPERATIONS.crash_now("open", path):
                die()
            opened = original(file, mode, *arguments, **options)
        write, close = opened.write, opened.close

        def counting_write(data: Any) -> int:
            with ONE_AT_A_TIME:
                if OPERATIONS.crash_now("write", path):
                    write(data[: len(data) // 2])
                    opened.flush()
                    die()
                return write(data)  # type: ignore[no-any-return]

        def counting_close() -> None:
            with ONE_AT_A_TIME:
                if not opened.closed and OPERATIONS.crash_now("close", path):
                    die()
                close()

        opened.write, opened.close = counting_write, counting_close
        return opened

    return counting


if __name__ == "__main__":
    for name in CALLS:
        setattr(os, name, counted(name))
    io.open = counted_open(io.open)
    sys.exit(import_module(os.environ.get("CRASH_PROGRAM", "jepa.launch")).main())
