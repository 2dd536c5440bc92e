"""One writer a run directory: a second one is told who the first is."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from jepa.config import ConfigError
from jepa.errors import UserError


class RunInUseError(UserError, RuntimeError):
    """Another process writes the run directory; its message is for the user."""


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold `run_dir/lock` against a second writer, here or on another machine; a directory left empty is removed.

    A record lock: the system drops it when this process dies, however it dies, and children that outlive it (loaders
    of data) do not inherit it. Raises RunInUseError that says who holds it, and ConfigError for a directory that
    cannot be made or locked.
    """
    existed = run_dir.exists()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = _hold(run_dir)
    except OSError as error:
        raise ConfigError(f"run_dir: {error}") from error
    try:
        yield
    finally:
        (run_dir / "lock").unlink(missing_ok=True)
        file.close()
        if not existed and not any(run_dir.iterdir()):
            run_dir.rmdir()


def _hold(run_dir: Path) -> IO[str]:
    """The lock file, open and locked; raises RunInUseError."""
    path = run_dir / "lock"
    while True:
        file = path.open("a+")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = _holder(file)
            file.close()
            raise RunInUseError(
                f"{run_dir} is being written by {holder}; wait for it, stop it, or choose another run_dir"
            ) from error
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            break
        file.close()  # its holder removed it between our opening and locking it
    file.truncate(0)
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    json.dump(owner | {"job": os.environ.get("SLURM_JOB_ID", "")}, file)
    file.flush()
    return file


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        owner = json.loads(file.read())
    except ValueError:
        return "another process that has just started"
    job = f" (SLURM job {owner['job']})" if owner["job"] else ""
    return f"process {owner['pid']} on {owner['host']}{job} since {owner['since']}"
