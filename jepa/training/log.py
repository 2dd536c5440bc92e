"""Logs of a training run: metrics.jsonl with a line per logging step, TensorBoard events, and a progress bar."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jepa.console import CONSOLE, shown, warn_once
from jepa.disk import write_text, writing
from jepa.training.events import Events

PROBE = "knn_accuracy"  # the score of the probe during training


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without a last line that a kill cut short; of damaged ones it warns."""
    path = run_dir / "metrics.jsonl"
    found: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text().split("\n")[:-1] if path.exists() else (), start=1):
        try:
            found.append(json.loads(line))
        except ValueError:
            warn_once(f"line {number} of {path} is damaged and left out")
    return found


class RunLog:
    """Logs of a run from step `first_step`; lines of an earlier attempt beyond that step are dropped.

    enabled: true on rank 0 only; the other processes write and show nothing.
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
        self.steps, self.probed = steps, ""
        if enabled:
            self._drop_lines_after(first_step)
            self.events = Events(run_dir / "tensorboard", first_step)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def advance(self, step: int) -> None:
        self.progress.update(self.task, completed=step)

    def write(self, step: int, clock: "Stopwatch", *groups: Mapping[str, float]) -> None:
        """Log groups of values of a step, which include `loss` and `samples_per_second`, and the time so far."""
        if not self.enabled:
            return
        values = {name: value for group in groups for name, value in group.items()} | {"seconds": clock.total()}
        path = self.run_dir / "metrics.jsonl"
        with writing(path), path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self.events.add(step, values)
        if PROBE in values:
            self.probed = f"  k-NN {100 * values[PROBE]:.1f} %"
        status = f"loss {values['loss']:.4f}{self.probed}  {values['samples_per_second']:.0f} samples/s"
        self.progress.update(self.task, status=status)
        if not CONSOLE.is_terminal:
            left = values["seconds"] / step * (self.steps - step)
            self.say(f"step {step}/{self.steps}  {status}  {left / 60:.1f} min left")

    def warn(self, step: int, warning: str) -> None:
        """Print a warning, unless it is empty, above the progress bar."""
        if warning:
            self.say(f"step {step}: {warning}", style="yellow")

    def say(self, message: str, style: str = "") -> None:
        """Print a line above the progress bar."""
        if self.enabled:
            CONSOLE.print(shown(message), style=style)

    def _drop_lines_after(self, step: int) -> None:
        lines = [json.dumps(line) + "\n" for line in read_metrics(self.run_dir) if line["step"] <= step]
        path = self.run_dir / "metrics.jsonl"
        write_text(path, "".join(lines), path.with_name("metrics.jsonl.partial"))


class Stopwatch:
    """Training time over all attempts, and speed since the last lap."""

    def __init__(self, seconds_before: float) -> None:
        self.started = self.lap_started = time.perf_counter()
        self.seconds_before, self.steps = seconds_before, 0

    def total(self) -> float:
        """Seconds of training, earlier attempts included."""
        return self.seconds_before + time.perf_counter() - self.started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the body out of the speed, but not out of the time."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.lap_started += time.perf_counter() - started

    def lap(self, steps: int) -> float:
        """Steps per second since the last lap; steps: done in this attempt."""
        now = time.perf_counter()
        speed = (steps - self.steps) / (now - self.lap_started)
        self.steps, self.lap_started = steps, now
        return speed
