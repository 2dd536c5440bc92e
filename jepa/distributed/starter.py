"""Start the processes of one run on this machine, as torchrun does, and end them together."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch

from jepa.config import ConfigError
from jepa.distributed import peers
from jepa.distributed.signals import STOP_SIGNALS
from jepa.errors import INTERRUPTED

_POLL = 0.1  # seconds


def run_processes(count: int, module: str, arguments: Sequence[str]) -> int:
    """Run `python -m module` in `count` processes of one group -> exit status, that of the first that fails.

    They share the cores or GPUs of this machine, and get the stop signals that this process receives. If it dies, they
    end within seconds, as it holds the store that they watch (`failing_together`).
    Raises ConfigError if this process is itself one of several.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("--processes: torchrun or a scheduler has started several processes already; leave it away")
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # some builds of torch lack it

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count))}
    line = [sys.executable, "-m", module, *arguments]
    group: list[subprocess.Popen[bytes]] = []
    with _forwarding(group):
        for rank in range(count):
            environment = threads | os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            # In a session of its own, so that the interrupt of a terminal does not reach it twice.
            group.append(subprocess.Popen(line, env=environment, start_new_session=True))
        return _end_together(group)


def automatic_processes() -> int:
    """One process per GPU; on CPUs two if there are two cores, as small networks gain little from threads."""
    return torch.cuda.device_count() or min(2, torch.get_num_threads())


def _end_together(group: Sequence["subprocess.Popen[bytes]"]) -> int:
    """Wait for all processes -> exit status; once one fails, the others have some time to end on their own."""
    waiting = list(group)
    while waiting:
        for process in waiting:
            try:
                process.wait(_POLL)
            except subprocess.TimeoutExpired:
                continue
            waiting.remove(process)
            if process.returncode not in (0, INTERRUPTED):
                _end(waiting)
                return process.returncode if process.returncode > 0 else 128 - process.returncode
            break
    return max(process.returncode for process in group)


def _end(group: Sequence["subprocess.Popen[bytes]"]) -> None:
    for process in group:
        try:
            process.wait(2 * peers.GRACE)  # they notice the failure themselves
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _forwarding(group: Sequence["subprocess.Popen[bytes]"]) -> Iterator[None]:
    """Pass stop signals on to the processes of the group."""

    def forward(number: int, frame: FrameType | None) -> None:
        for process in group:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
