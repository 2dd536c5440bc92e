"""How a process of training uses the memory of its host."""

import ctypes
import os
import sys

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # numbers of glibc's malloc.h
_KEPT = 2**29  # bytes that stay with the process at most when they are free
_GROWTH = 2**26


def keep_freed_memory(device: torch.device) -> None:
    """On a CPU, reuse memory from step to step instead of returning it to the system and asking for it again.

    Otherwise the system clears thousands of pages in every step. Environment variables that set this take precedence.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    set_by_user = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if device.type != "cpu" or set_by_user or not hasattr(libc, "mallopt"):
        return
    assert libc is not None
    for option, value in ((_MMAP_THRESHOLD, 2**25), (_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, _GROWTH)):
        libc.mallopt(option, value)
