"""Memory that a process keeps from step to step."""

import ctypes
import sys
from types import SimpleNamespace

import pytest
import torch

from jepa.training.memory import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these settings")
def test_only_a_cpu_run_keeps_freed_memory_unless_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda option, value: calls.append((option, value)))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    for variable in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        monkeypatch.delenv(variable, raising=False)
    keep_freed_memory(torch.device("cuda"))
    assert not calls
    keep_freed_memory(torch.device("cpu"))
    assert dict(calls)[-1] >= 2**28  # bytes at the end of the heap that stay, M_TRIM_THRESHOLD
    calls.clear()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    keep_freed_memory(torch.device("cpu"))
    library.__dict__.clear()  # another C library
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    keep_freed_memory(torch.device("cpu"))
    assert not calls
