"""How far an embedding is: a bar on terminals, a line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from jepa.console import CONSOLE

_EVERY = 60.0  # seconds between two lines
_AT_LEAST = 0.3  # seconds between two states of the bar


class _Speed(ProgressColumn):
    """Rows a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "")


class Progress:
    """Shows how many of `total` rows are done."""

    def __init__(self, total: int, done: int, shows: bool) -> None:
        columns = ("embed", BarColumn(bar_width=None), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
        self.total, self.first, self.started, self.updated = total, done, time.monotonic(), 0.0
        self.line_due = self.started + _EVERY if shows and not CONSOLE.is_terminal else float("inf")
        self.bar = Bar(*columns, console=CONSOLE, transient=True, disable=not (shows and CONSOLE.is_terminal))
        self.task = self.bar.add_task("", total=total, completed=done)

    @contextmanager
    def shown(self) -> Iterator["Progress"]:
        """Show the bar during the body."""
        with self.bar:
            yield self

    def is_due(self) -> bool:
        """Whether a new number should be shown: counting parts takes time."""
        return time.monotonic() - self.updated > _AT_LEAST

    def update(self, done: int) -> None:
        """Show this number of rows."""
        self.updated = time.monotonic()
        self.bar.update(self.task, completed=done)
        if time.monotonic() < self.line_due:
            return
        self.line_due = time.monotonic() + _EVERY
        speed = (done - self.first) / (time.monotonic() - self.started)
        left = f", {(self.total - done) / speed / 60:,.0f} min left" if speed else ""
        CONSOLE.print(f"{done:,} of {self.total:,} rows, {speed:,.0f}/s{left}")
