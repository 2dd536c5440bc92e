"""One writer per run directory: a second writer is refused and learns who the first one is."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import Timeout

from jepa.config import ConfigError
from jepa.console.causes import reason_in
from jepa.disk.locks import exclusive
from jepa.errors import UserError

_RETRY_SECONDS = 0.2  # longer than the moment in which a finished run removes its lock file
_WITHOUT = "nothing stops a second run from writing here at the same time; start only one"


class RunInUseError(UserError, RuntimeError):
    """Another process writes the run directory; the message is for the user."""


@contextmanager
def locked(run_dir: Path, output: Path | None = None) -> Iterator[None]:
    """Hold `run_dir/lock` against a second writer, here or on another machine; remove the directory if it stays empty.

    The system drops the lock when this process dies, however it dies; forked children (data loaders) close their copy.
    If the file system has no locks, warn and run. output: the file that is made in this directory, if it is no run
    directory; messages name it. Raises RunInUseError, which names the holder, and ConfigError if the directory cannot
    be created or locked.
    """
    path, setting = run_dir / "lock", "run_dir" if output is None else "output"
    with ExitStack() as stack:
        if not run_dir.exists():
            stack.callback(_remove_if_empty, run_dir)
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(path, _WITHOUT, _RETRY_SECONDS, _write_holder))
        except Timeout as error:
            raise RunInUseError(
                f"{output or run_dir} is being written by {_holder(path)}; "
                f"wait for it, stop it, or choose another {setting}"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"{setting}: {run_dir} cannot be created or locked: {reason_in(error) or error}"
            ) from error
        try:
            yield
        finally:
            with suppress(OSError):  # Windows cannot remove an open file; there the release removes it
                path.unlink()


def _remove_if_empty(run_dir: Path) -> None:
    if run_dir.is_dir() and not any(run_dir.iterdir()):
        run_dir.rmdir()


def _write_holder(file: int) -> None:
    """Write who holds the lock to its file, after the first byte, which no other process can read on Windows."""
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with suppress(OSError):  # on a full disk, which the next file reports, the lock holds without this text
        os.ftruncate(file, 0)
        os.write(file, f"\n{json.dumps(holder | {'job': os.environ.get('SLURM_JOB_ID', '')})}".encode())


def _holder(path: Path) -> str:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(1)
            holder = json.loads(file.read())
    except (OSError, ValueError):
        return "another process that has just started"
    job = f" (SLURM job {holder['job']})" if holder["job"] else ""
    return f"process {holder['pid']} on {holder['host']}{job} since {holder['since']}"
