"""If one process fails, the others end too, even if they are waiting for it in a collective."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import active_children
from threading import Event, Thread
from typing import Any

from jepa.distributed.world import PeerError, World, reason_of
from jepa.errors import UserError, print_error

GRACE = 15  # seconds that a process has to end on its own once another has failed
_POLL = 1.0  # seconds
_LOST_PEER = re.compile(r"closed by peer|reset by peer|broken pipe|remote process|socket closed", re.IGNORECASE)


@contextmanager
def failing_together(world: World) -> Iterator[None]:
    """If the body raises in one process, all processes end within seconds.

    NCCL collectives wait for a dead process, and launchers kill the others late or, on other machines, never. So the
    failing process writes its reason to the store of the process group, which a thread in every process watches.
    Raises PeerError in a process whose collective lost another process.
    """
    if world.size == 1:
        yield
        return
    failures, done = _Failures(), Event()
    watch = Thread(target=_end_after_failure, args=(failures, done), daemon=True)
    watch.start()
    try:
        yield
    except Exception as error:
        first = failures.first()
        own = f"process {world.rank} failed: "
        failures.report(str(error) if isinstance(error, PeerError) else own + reason_of(error))
        if isinstance(error, UserError) or own in first:  # others learned it in an error barrier and were faster
            raise
        if first or _LOST_PEER.search(str(error)):
            raise PeerError(first or "another process of the run died; often memory was short") from error
        raise
    finally:
        done.set()
        watch.join(timeout=2 * _POLL)


class _Failures:
    """The first failure of any process, kept in the store of the process group; does nothing if the store is gone."""

    def __init__(self) -> None:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]  # some builds of torch lack it

        # The store of torchrun outlives the attempts of a run.
        self.key = f"jepa/failure/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.store: Any = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=GRACE))

    def first(self) -> str:
        """The reason of the first failure; empty if no process has failed."""
        try:
            return str(self.store.get(self.key).decode(errors="replace")) if self.store.check([self.key]) else ""
        except RuntimeError:
            return "the process that connects the others has ended"

    def report(self, reason: str) -> None:
        """Record this failure, unless there is an earlier one."""
        try:
            self.store.compare_set(self.key, "", reason)
        except RuntimeError:
            return  # the others notice that the store is gone


def _end_after_failure(failures: _Failures, done: Event) -> None:
    """Wait for a failure; then end this process if it does not end on its own."""
    while not (reason := failures.first()):
        if done.wait(_POLL):
            return
    if done.wait(GRACE):
        return
    print_error(reason)
    for process in active_children():
        process.kill()
    sys.stderr.flush()
    os._exit(1)
