"""Generated data on disk: each folder is written once, by one process, and is never visible half-written."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from jepa.disk import writing
from jepa.disk.cache import user_cache as user_cache
from jepa.disk.locks import exclusive


def write_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return `folder`; if it does not exist, `write` fills it first.

    `write` gets a temporary folder, which is renamed when it is complete, so that the remains of a killed process are
    never used. If several processes call this at once, one of them writes and the others wait.
    """
    if folder.is_dir():
        return folder
    with writing(folder):
        _write_alone(folder, write)
    return folder


def _write_alone(folder: Path, write: Callable[[Path], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.parent / f"{folder.name}.lock"
    with exclusive(lock, "several processes may each generate the same data") as alone:
        if folder.is_dir():
            return
        for abandoned in folder.parent.glob(f"{folder.name}.part-*") if alone else ():
            shutil.rmtree(abandoned, ignore_errors=True)
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
        try:
            write(part)
            part.chmod(0o755)
            _publish(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _publish(part: Path, folder: Path) -> None:
    """Rename a complete folder; without locks, another process may have been first, and its folder is as good."""
    try:
        part.replace(folder)
    except OSError:
        if not folder.is_dir():
            raise


def reserve(path: Path) -> None:
    """Give a file its space on the disk now: writing to mapped memory on a full disk would kill the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # this file system reserves nothing
                return
            raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
