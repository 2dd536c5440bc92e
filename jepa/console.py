"""The console that messages and the progress bar share."""

from rich.console import Console

CONSOLE = Console(stderr=True, soft_wrap=True)
