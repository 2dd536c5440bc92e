"""Start the processes of one run on this machine, as torchrun does, and end them together."""

import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType

import torch

from jepa.config import ConfigError
from jepa.distributed import peers
from jepa.distributed.signals import STOP_SIGNALS
from jepa.errors import INTERRUPTED

_POLL = 0.1  # seconds
_STARTED = "JEPA_STARTED"  # in the environment of the processes that `run_processes` starts


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
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), _STARTED: "1"}
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count))}
    line = [sys.executable, "-m", module, *arguments]
    group = _Group()
    try:
        for rank in range(count):
            group.start(line, threads | os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        return group.finish()
    finally:
        group.close()


def is_started() -> bool:
    """Whether `run_processes` started this process: its command line still has --processes."""
    return _STARTED in os.environ


def process_count(text: str) -> int:
    """What `--processes` says: a number, or `auto`."""
    if text == "auto":
        return automatic_processes()
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"'{text}' is neither a number from 1 on nor auto")
    return int(text)


def automatic_processes() -> int:
    """One process per GPU; on CPUs two if there are two cores, as small networks gain little from threads."""
    return torch.cuda.device_count() or min(2, torch.get_num_threads())


class _Group:
    """Processes that get the stop signals of this one, and end together."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.signals: list[int] = []
        self.before = {number: signal.signal(number, self._forward) for number in STOP_SIGNALS}

    def start(self, line: Sequence[str], environment: Mapping[str, str]) -> None:
        # In a session of its own, so that the interrupt of a terminal does not reach it twice.
        process = subprocess.Popen(line, env=environment, start_new_session=True)
        self.processes.append(process)
        for number in self.signals:
            process.send_signal(number)

    def finish(self) -> int:
        """Wait for all processes -> exit status; once one fails, the others have some time to end on their own."""
        while (running := self._running()) and not self._failed():
            with suppress(subprocess.TimeoutExpired):
                running[0].wait(_POLL)
        if failed := self._failed():
            self._end(time.monotonic() + 2 * peers.GRACE)  # they notice the failure themselves
            return failed if failed > 0 else 128 - failed
        return max(process.returncode for process in self.processes)

    def close(self) -> None:
        """End what still runs, after an error here."""
        self._end(time.monotonic())
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _running(self) -> list["subprocess.Popen[bytes]"]:
        return [process for process in self.processes if process.poll() is None]

    def _failed(self) -> int:
        """Exit status of the first process that failed; 0 if none has. A run that a signal stopped has not failed."""
        statuses = (process.poll() for process in self.processes)
        return next((status for status in statuses if status not in (None, 0, INTERRUPTED)), 0) or 0

    def _end(self, deadline: float) -> None:
        for process in self._running():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)
        for process in self._running():
            process.send_signal(number)
