"""What all commands share: an error that a user can cause ends in one sentence."""

from collections.abc import Callable

from rich.markup import escape

from jepa.checkpoint import CheckpointError
from jepa.config import ConfigError
from jepa.data import DataError
from jepa.distributed import PeerError
from jepa.lock import RunInUseError
from jepa.registry import UnknownModalityError
from jepa.run_log import CONSOLE
from jepa.train import NonFiniteLossError

INTERRUPTED = 130  # exit status of a run that was asked to stop: it is not finished, but nothing is wrong
USER_ERRORS = (
    ConfigError,
    DataError,
    CheckpointError,
    NonFiniteLossError,
    PeerError,
    RunInUseError,
    UnknownModalityError,
)


def exit_status(command: Callable[[], int]) -> int:
    """Run a command; what a user can cause becomes one sentence on stderr and status 1."""
    try:
        return command()
    except USER_ERRORS as error:
        CONSOLE.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        return 1
