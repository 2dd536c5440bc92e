"""Errors that a user can cause: one base class, and the way every command reports them."""

from collections.abc import Callable

from rich.markup import escape

from jepa.console import CONSOLE

INTERRUPTED = 130  # exit status of a run that a signal stopped: it is saved, but not finished


class UserError(Exception):
    """Base class of every error that a user can cause; its message is one sentence for the user."""


def exit_status(command: Callable[[], int]) -> int:
    """Run a command -> its exit status; a UserError becomes one sentence on stderr and status 1."""
    try:
        return command()
    except UserError as error:
        CONSOLE.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        return 1
