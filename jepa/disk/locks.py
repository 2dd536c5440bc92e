"""Locks of the system on files, and what happens where a file system has none."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from jepa.console import warn_once

# Lustre without `-o flock`, NFS without a lock daemon, and some FUSE mounts.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, getattr(errno, "ENOTSUP", errno.EOPNOTSUPP)}


@contextmanager
def exclusive(
    path: Path, consequence: str, timeout: float = -1, on_acquired: Callable[[int], None] | None = None
) -> Iterator[bool]:
    """Hold a lock on a file, which the system drops when this process dies -> whether there is a lock.

    Where the file system has no locks, print a warning with the `consequence` once, and continue without one.
    timeout: seconds to wait for another holder; -1 waits until it is done. Raises filelock.Timeout and OSError.
    """
    lock = FileLock(path, fallback_to_soft=False, on_acquired=on_acquired)
    try:
        lock.acquire(timeout=timeout)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warn_once(f"the file system of {path.parent} has no locks ({error.strerror}), so {consequence}")
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
