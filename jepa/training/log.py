"""What a run says while it trains: a line of metrics.jsonl a logging step, TensorBoard events, a progress bar."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jepa.console import CONSOLE


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line cut short by a kill is left out."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]  # what follows the last newline was cut short
    return [json.loads(line) for line in lines]


class RunLog:
    """Logs of one run from step `first_step` on; lines of a previous attempt beyond that step are dropped.

    `enabled` is false in all processes but one, which then write and show nothing.
    """

    def __init__(self, run_dir: Path, first_step: int, steps: int, enabled: bool) -> None:
        self.run_dir, self.enabled = run_dir, enabled
        self.progress = Progress(
            TextColumn("[bold]step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=CONSOLE,
            disable=not enabled or not CONSOLE.is_terminal,
        )
        self.task = self.progress.add_task("", total=steps, completed=first_step, status="")
        self.steps = steps
        if enabled:
            self._keep_until(first_step)
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and needed by one process only

            self.events = SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step + 1)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
        if self.enabled:
            self.events.close()

    def advance(self, step: int) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Note values of a step, among them `loss` and `samples_per_second`."""
        if not self.enabled:
            return
        with (self.run_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.events.add_scalar(name, value, step)
        status = f"loss {values['loss']:.4f}  {values['samples_per_second']:.0f} samples/s"
        self.progress.update(self.task, status=status)
        if not CONSOLE.is_terminal:
            passed = values["seconds"] / step * (self.steps - step)
            self.say(f"step {step}/{self.steps}  {status}  {passed / 60:.1f} min left")

    def warn(self, step: int, warning: str) -> None:
        """Say a warning, where there is one, above the bar."""
        if warning:
            self.say(f"step {step}: {warning}", style="yellow")

    def say(self, message: str, style: str = "") -> None:
        """A line above the bar."""
        if self.enabled:
            CONSOLE.print(message, style=style, highlight=False)

    def _keep_until(self, step: int) -> None:
        lines = [json.dumps(line) + "\n" for line in read_metrics(self.run_dir) if line["step"] <= step]
        aside = self.run_dir / "metrics.jsonl.partial"
        aside.write_text("".join(lines))
        os.replace(aside, self.run_dir / "metrics.jsonl")  # noqa: PTH105 - atomic


class Stopwatch:
    """Seconds of training over all attempts, and speed since the last look."""

    def __init__(self, seconds_before: float) -> None:
        self.started = self.looked = time.perf_counter()
        self.seconds_before, self.steps = seconds_before, 0

    def total(self) -> float:
        """Seconds spent training, those of earlier attempts included."""
        return self.seconds_before + time.perf_counter() - self.started

    def lap(self, steps: int) -> float:
        """Steps a second since the last call, from the number of steps of this attempt."""
        now = time.perf_counter()
        speed = (steps - self.steps) / (now - self.looked)
        self.steps, self.looked = steps, now
        return speed
