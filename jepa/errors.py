"""Errors that a user can cause: one base class, and the way every command reports them."""

import re
from collections.abc import Callable

from rich.text import Text

from jepa.console import CONSOLE, outside_cause, shown

INTERRUPTED = 130  # exit status of a run that a signal stopped: it is saved, but not finished


class UserError(Exception):
    """Base class of every error that a user can cause; its message is one sentence for the user."""


def exit_status(command: Callable[[], int]) -> int:
    """Run a command -> its exit status; an error from outside of the program is one sentence on stderr and status 1."""
    try:
        return command()
    except KeyboardInterrupt:
        print_error("interrupted")
        return INTERRUPTED
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else outside_cause(error)
        if not message:
            raise
        print_error(message)
        return 1


def print_error(message: str) -> None:
    """Print an error on one line."""
    CONSOLE.print(Text.assemble(("error:", "bold red"), " ", shown(re.sub(r"\s*\n\s*", " ", message))))
