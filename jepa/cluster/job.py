"""The command that a job runs, its requeueing, and the job files of a run directory."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa.config.imports import imported
from jepa.disk import write_text, writing
from jepa.errors import INTERRUPTED

_START_SECONDS = 10  # upper bound on submitit's work before the command starts


class Attempts:
    """Log of a run's attempts: `attempts.jsonl` in its directory, with a line for each start and end."""

    def __init__(self, run_dir: Path, job_id: str, enabled: bool) -> None:
        self.run_dir, self.job_id, self.enabled = run_dir, job_id, enabled

    def begin(self, hosts: Sequence[str]) -> None:
        self._write({"begin": time.time(), "hosts": list(hosts), "pid": os.getpid()})

    def end(self, how: str) -> None:
        """Log the end of an attempt: `finished`, `requeued`, `stopped`, or `failed: ` with the reason."""
        self._write({"end": time.time(), "how": how})

    def count(self) -> int:
        return sum("begin" in line for line in read_attempts(self.run_dir) if line["job_id"] == self.job_id)

    def _write(self, values: dict[str, Any]) -> None:
        if self.enabled:
            path = self.run_dir / "attempts.jsonl"
            with writing(path):
                self.run_dir.mkdir(parents=True, exist_ok=True)
                torn = path.exists() and not path.read_bytes().endswith(b"\n")  # by a kill or a full disk
                with path.open("a") as file:
                    file.write("\n" * torn + json.dumps({"job_id": self.job_id, **values}) + "\n")


def read_attempts(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of attempts.jsonl, without incomplete ones."""
    path = run_dir / "attempts.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def write_job(run_dir: Path, content: dict[str, Any]) -> None:
    """Write job.json atomically."""
    write_json(run_dir / "job.json", content)


def read_job(run_dir: Path) -> dict[str, Any]:
    """Content of job.json; empty for a run that was never submitted."""
    return read_json(run_dir / "job.json")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically, and its folder if it is missing."""
    write_text(path, json.dumps(content, indent=1) + "\n", path.with_name(f"{path.name}.partial"))


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file; empty if there is none."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


@dataclass(frozen=True)
class Command:
    """A `jepa launch` command as a job: the object that submitit pickles.

    directory: working directory of the command. run_dir: absolute. max_requeues: attempts after the first.

    On a signal during the training loop, the run saves its exact step and returns, and `_stopped` requeues the job.
    Before and after the loop nothing needs saving: submitit's own handler requeues the job through `checkpoint`.
    """

    arguments: tuple[str, ...]
    directory: str
    run_dir: str
    max_requeues: int
    entry: str = "jepa.launch:main"  # by name, as that module imports this package

    def __call__(self) -> None:
        """Run the command in every process of the job; raises SystemExit unless the run finishes."""
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        os.chdir(self.directory)
        environment = JobEnvironment()
        if environment.num_tasks > 1:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        attempts = Attempts(Path(self.run_dir), str(environment.job_id), environment.global_rank == 0)
        attempts.begin(environment.hostnames)
        began = time.monotonic()
        try:
            status = imported(self.entry)(self.arguments)
        except SystemExit as error:
            # Submitit's own handler ends the process by -1 once it has requeued the job.
            attempts.end("requeued" if error.code == -1 else f"failed: exit status {error.code}")
            raise
        except BaseException as error:
            attempts.end(f"failed: {type(error).__name__}: {error}")
            raise
        if status == INTERRUPTED:
            self._stopped(environment, attempts, time.monotonic() - began)
        attempts.end("finished" if status == 0 else f"failed: exit status {status}")
        if status != 0:
            raise SystemExit(status)

    def checkpoint(self) -> Any:
        """Resubmit this command; called by submitit's own handler."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _stopped(self, environment: Any, attempts: Attempts, seconds: float) -> None:
        """Requeue the job, unless SLURM or the user has ended it; never returns."""
        if environment.global_rank != 0:
            raise SystemExit(0)  # rank 0 decides; the job takes its exit status
        # A second signal must not requeue the job twice.
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        try:
            requeue = may_requeue(environment, seconds)
        except (OSError, subprocess.SubprocessError) as error:
            attempts.end(f"failed: the cluster does not say whether it stopped the job: {error}")
            raise
        if not requeue:
            attempts.end("stopped")
            raise SystemExit(INTERRUPTED)
        used, allowed = attempts.count(), self.max_requeues
        if used > allowed:
            attempts.end(f"failed: not finished after {used} attempts, max_requeues is {allowed}")
            print(f"error: not finished after {used} attempts, and max_requeues={allowed} allows no more", flush=True)
            raise SystemExit(1)
        attempts.end("requeued")
        environment._requeue(allowed - used)
        raise SystemExit(INTERRUPTED)


def may_requeue(environment: Any, seconds: float) -> bool:
    """Whether a job that was stopped after so many seconds should be requeued here.

    SLURM still lists a job as running if it is preempted or near its time limit, but not if the user has cancelled it
    or SLURM itself requeues it. Without SLURM, only a job near its time limit is requeued.
    """
    if environment.cluster != "slurm":
        limit = float(os.environ.get("SUBMITIT_LOCAL_TIMEOUT_S", "inf"))
        delay = float(os.environ.get("SUBMITIT_LOCAL_SIGNAL_DELAY_S", "0"))
        return seconds > limit - delay - _START_SECONDS
    command = ["scontrol", "show", "job", "--oneliner", environment.job_id]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return "JobState=RUNNING" in shown.stdout.split()
