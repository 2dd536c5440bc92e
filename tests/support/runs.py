"""Tiny runs on this machine and on a cluster, and their outcomes."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fork_server
import pytest
import torch

from jepa import launch
from jepa.checkpoint import Checkpoint, latest
from jepa.cluster.job import read_job
from jepa.cluster.status import JobStatus, statuses
from jepa.training.log import read_metrics
from local_cluster_host import wait_until

STEPS = 100
POLL = 0.2  # seconds; a look at the status of a run starts three processes


TINY = f"""
    data.source=folder data.image_size=32 data.patch_size=4 data.masking.kind=block data.masking.targets=2
    model.size.width=48 model.size.depth=2 model.size.heads=2 optim.batch_size=8 steps={STEPS} log_every=1
    model.predictor.width=32 model.predictor.depth=1 model.predictor.heads=2 checkpoint_every=20
    compute.workers=1 compute.precision=fp32
    evaluate.enabled=false evaluate.report=false
""".split()
SLOW = "slow_images:SlowImages"  # slow enough to be interrupted


def arguments(run_dir: Path, photos: Path, *more: str, modality: str = "image") -> list[str]:
    return ["--modality", modality, "--run-dir", str(run_dir), *TINY, f"data.root={photos}", *more]


def launch_here(*arguments: str, processes: int = 1) -> str:
    """Run `jepa launch` with one thread per process, as in jobs -> its output."""
    done = fork_server.run_group(processes, "jepa.launch", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def _start(command: list[str]) -> fork_server.Process:
    assert command[:2] == [sys.executable, "-m"]
    return fork_server.start(*command[2:])


FORKING: Any = SimpleNamespace(Popen=_start, TimeoutExpired=subprocess.TimeoutExpired)  # in place of `subprocess`


def sweep_here(*arguments: str) -> int:
    """Run a `jepa launch` of several runs, each started by the fork server -> exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jepa.cluster.sweep.subprocess", FORKING)
        return launch.main(arguments)


def kill_after(step: int, run_dir: Path, *arguments: str) -> None:
    """Kill a run with SIGKILL as soon as it has finished a step."""
    process = fork_server.start("jepa.launch", *arguments)
    while process.poll() is None and not any(line["step"] >= step for line in read_metrics(run_dir)):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def status(run_dir: Path) -> JobStatus:
    return statuses([run_dir])[0]


def until(run_dir: Path, reached: Callable[[JobStatus], bool], seconds: float = 240) -> JobStatus:
    wait_until(lambda: reached(status(run_dir)), seconds, lambda: f"{status(run_dir)}\n{log_of(run_dir)}", every=POLL)
    return status(run_dir)


def until_ended(run_dir: Path) -> JobStatus:
    return until(run_dir, lambda found: not found.is_active)


def log_of(run_dir: Path) -> str:
    path = Path(read_job(run_dir)["log"])
    return path.read_text() if path.exists() else ""


def assert_same_weights(run_dir: Path, expected: Path) -> None:
    ended, other = Checkpoint.load(latest(run_dir)), Checkpoint.load(latest(expected))
    assert ended.step == other.step
    assert all(torch.equal(ended.model[name], value) for name, value in other.model.items())
    losses = [[line["loss"] for line in read_metrics(folder)] for folder in (run_dir, expected)]
    assert losses[0] == losses[1]
