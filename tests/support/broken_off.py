"""`python -m broken_off ...` runs `jepa.launch` and interrupts it at a chosen moment of its third or fourth step.

BREAK_OFF in the environment chooses the moment: `stop` requests a stop after step 3; `write` kills the process while it
writes the shards of step 4, and `publish` after they are written but before the checkpoint links to them.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jepa.checkpoint.shards
import jepa.train
import jepa.training.saver
from jepa import launch
from jepa.checkpoint.file import publish_shards
from jepa.distributed import StopRequest


class Countdown(StopRequest):
    """Becomes true when it is read for the fourth time: before the first step, and once in each of three steps."""

    def __init__(self) -> None:
        self.signal_name, self.left = "SIGTERM", 4

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@contextmanager
def countdown() -> Iterator[StopRequest]:
    yield Countdown()


class Deadly(jepa.checkpoint.shards.Writer):
    """Dies, in one of two processes, instead of writing the shards of step 4."""

    def write_data(self, plan: Any, planner: Any) -> Any:
        if Path(self.path).name == "step_4" and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write_data(plan, planner)


def deadly_publish(folder: Path, *arguments: Any) -> None:
    if folder.name == "step_4":
        os.kill(os.getpid(), signal.SIGKILL)
    publish_shards(folder, *arguments)


match os.environ["BREAK_OFF"]:
    case "stop":
        jepa.train.stop_on_signals = countdown
    case "write":
        jepa.checkpoint.shards.Writer = Deadly  # type: ignore[misc]
    case "publish":
        jepa.training.saver.publish_shards = deadly_publish

if __name__ == "__main__":
    sys.exit(launch.main())
