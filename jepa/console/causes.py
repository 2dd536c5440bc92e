"""Errors whose cause lies outside of the program, as sentences: a full disk, a killed loader process, no memory."""

import errno
import os
import re
from collections.abc import Iterator

_FULL = {
    errno.ENOSPC: "the disk is full",
    getattr(errno, "EDQUOT", errno.ENOSPC): "the disk quota is used up",
    errno.EFBIG: "the system does not allow a file of this size",
}
_LOADER = re.compile(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) (?:is killed by signal: ([\w ]+)|(?:has )?exited)")
_LOADER_ADVICE = "set fewer compute.workers or a smaller compute.cache_mb or compute.prefetch_mb"
_SHARED = re.compile(r"out of shared memory|unable to \w+ .*(shared memory|</torch)", re.DOTALL)


def outside_cause(error: BaseException) -> str:
    """What a user can do about an error that comes from outside of the program, in one sentence; "" for others."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in _FULL:
            where = f": {one.filename}" if one.filename else ""
            return f"{_FULL[one.errno]}{where}; free some space and run the same command again"
        if isinstance(one, RuntimeError) and (sentence := _loader_cause(str(one))):
            return sentence
        if isinstance(one, MemoryError) and "in DataLoader worker process" in str(one):
            return f"a loader process ran out of memory; {_LOADER_ADVICE}"
        if (
            isinstance(one, MemoryError) or type(one).__name__ == "OutOfMemoryError"
        ):  # of torch, which is slow to import
            words = re.sub(r"\s+", " ", str(one)).partition(". ")[0] or "out of memory"
            return f"{words}; try a smaller optim.batch_size, or compute.activation_checkpointing=true"
    return ""


def _loader_cause(message: str) -> str:
    if _SHARED.search(message):
        return f"a loader process found no room in shared memory (/dev/shm); enlarge it, or {_LOADER_ADVICE}"
    found = _LOADER.search(message)
    if not found:
        return ""
    how = f"was killed (signal: {found[2]})" if found[2] else "ended unexpectedly"
    often = "often the memory, or shared memory (/dev/shm), was full"
    return f"a loader process (pid {found[1]}) {how}; {often}: {_LOADER_ADVICE}"


def reason_in(error: BaseException) -> str:
    """The reason that the operating system gave for an error, or for one that it followed from; "" if it gave none."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno is not None:
            place = f" ({one.filename})" if one.filename else ""
            return f"{_FULL.get(one.errno) or os.strerror(one.errno)}{place}"
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
