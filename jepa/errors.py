"""Errors that a user can cause: one base class, and the way every command reports them."""

import re
from collections.abc import Callable

from rich.text import Text

from jepa.console import CONSOLE, shown

INTERRUPTED = 130  # exit status of a run that a signal stopped: it is saved, but not finished


class UserError(Exception):
    """Base class of every error that a user can cause; its message is one sentence for the user."""


def exit_status(command: Callable[[], int]) -> int:
    """Run a command -> its exit status; a UserError becomes one sentence on stderr and status 1."""
    try:
        return command()
    except UserError as error:
        print_error(str(error))
        return 1


def print_error(message: str) -> None:
    """Print an error on one line."""
    CONSOLE.print(Text.assemble(("error:", "bold red"), " ", shown(re.sub(r"\s*\n\s*", " ", message))))
