"""Generated data on disk: each folder is written once, by one process, and is never visible half-written."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def user_cache(name: str) -> Path:
    """$XDG_CACHE_HOME/openjepa/`name`, by default ~/.cache/openjepa/`name`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openjepa" / name


def write_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return `folder`; if it does not exist, `write` fills it first.

    `write` gets a temporary folder, which is renamed when it is complete, so that the remains of a killed process are
    never used. If several processes call this at once, one of them writes and the others wait.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.parent / f"{folder.name}.lock"
    with FileLock(lock, fallback_to_soft=False):  # the system releases it when the process ends, however it ends
        if folder.is_dir():
            return folder
        for abandoned in folder.parent.glob(f"{folder.name}.part-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
        try:
            write(part)
            part.chmod(0o755)
            part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder
