"""Stop signals become a request that the training loop checks."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Keyboard, operating system and SLURM (before it kills); Windows has no SIGUSR2.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name))


class StopRequest:
    """Is true once a signal has asked the run to stop."""

    def __init__(self) -> None:
        self.signal_name = ""

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: note the signal; a second keyboard interrupt stops at once."""
        if self.signal_name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn stop signals into a request that the loop checks; restores the previous handlers on exit."""
    request = StopRequest()
    before = {number: signal.signal(number, request.receive) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
