"""Memory that a process keeps from step to step."""

import ctypes

import fork_server
import pytest


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="only glibc has these settings")
def test_a_cpu_run_reuses_freed_memory_unless_the_environment_decides() -> None:
    faults = [
        int(fork_server.run("page_faults", kept, **variables).stdout)
        for kept, variables in (("kept", {}), ("freed", {}), ("kept", {"MALLOC_ARENA_MAX": "4"}))
    ]
    assert faults[0] < 100
    assert faults[1] > 10_000
    assert faults[2] > 10_000
