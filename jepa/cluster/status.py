"""`jepa jobs`, `jepa logs`, `jepa cancel`: status and control of submitted runs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from jepa.cluster.job import read_attempts, read_job
from jepa.cluster.sweep import is_finished
from jepa.config import ConfigError, read_yaml
from jepa.console import command_parser, printer, shown
from jepa.errors import exit_status
from jepa.training.log import read_metrics

_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT")
_RUNNING = ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT")
_TAIL = 5  # lines
_POLL = 0.5  # seconds
_PATIENCE = 60  # seconds for an answer of the cluster


@dataclass(frozen=True)
class JobStatus:
    run_dir: Path
    job_id: str
    state: str  # PENDING, RUNNING, FINISHED, CANCELLED, STOPPED or FAILED
    reason: str  # of a failure
    attempts: int
    step: int
    steps: int
    loss: float | None
    samples_per_second: float | None
    minutes_left: float | None
    log: Path

    @property
    def is_active(self) -> bool:
        return self.state in ("PENDING", "RUNNING")


def find(folder: Path) -> list[Path]:
    """Directories of submitted runs in a folder, in order of submission."""
    found = [path.parent for path in folder.rglob("job.json")]
    return sorted(found, key=lambda run_dir: (read_job(run_dir)["submitted"], str(run_dir)))


def statuses(run_dirs: Sequence[Path]) -> list[JobStatus]:
    """Status of submitted runs, from a single query to the cluster."""
    jobs = [read_job(run_dir) for run_dir in run_dirs]
    sent = [one for job in jobs if job["cluster"] == "slurm" for one in (job, job.get("evaluation")) if one]
    # Without owners, the cluster would send the jobs of all its users.
    owners = {os.getuid(), *((run_dir / "job.json").stat().st_uid for run_dir in run_dirs)}
    known = _cluster_states([one["job_id"] for one in sent], owners)
    return [_status(run_dir, job, known) for run_dir, job in zip(run_dirs, jobs, strict=True)]


def _status(run_dir: Path, job: dict[str, Any], known: dict[str, str]) -> JobStatus:
    """Status of a run by the job that matters now: the one that trains, then the one that evaluates, if there is one.

    known: states on the cluster, by job id. The attempts are read later than these, and once: a job that ends in
    between is then known to have finished, and its successor to be the one that matters.
    """
    of_run = read_attempts(run_dir)
    of_training = [line for line in of_run if line["job_id"] == job["job_id"]]
    if "evaluation" in job and any(line.get("how") == "finished" for line in of_training):
        job = {**job, **job["evaluation"]}
    job_id, log = job["job_id"], Path(job["log"])
    cluster_state = known.get(job_id, "") if job["cluster"] == "slurm" else _local_state(job_id)
    begun = sum("begin" in line for line in of_training)
    attempts = [line for line in of_run if line["job_id"] == job_id]
    state, reason = _state(cluster_state, is_finished(run_dir), attempts)
    lines = read_metrics(run_dir)
    last = lines[-1] if lines else {}
    config = run_dir / "config.yaml"
    steps = read_yaml(config)["steps"] if config.exists() else 0
    step = last.get("step", 0)
    left = last["seconds"] / step * (steps - step) / 60 if step else None
    speed = last.get("samples_per_second")
    return JobStatus(run_dir, job_id, state, reason, begun, step, steps, last.get("loss"), speed, left, log)


def _state(cluster_state: str, finished: bool, attempts: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """State and reason of a run from its state on the cluster ("" if unknown), its directory and its attempts."""
    word = cluster_state.partition(" ")[0]
    how = str(attempts[-1].get("how", "")) if attempts else ""
    if finished or how == "finished":
        return "FINISHED", ""
    if word in _WAITING:
        return "PENDING", ""
    if word in _RUNNING:
        return "RUNNING", ""
    if word == "CANCELLED":
        return "CANCELLED", ""
    if how == "stopped":
        return "STOPPED", ""
    if how.startswith("failed"):
        return "FAILED", how.removeprefix("failed: ")
    if word in ("OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "DEADLINE", "BOOT_FAIL"):
        return "FAILED", word.lower().replace("_", " ")
    if word == "FAILED" or attempts:
        return "FAILED", "killed without a message; often it ran out of memory"
    return "FAILED", "left the queue before it started"


def _cluster_states(job_ids: Sequence[str], owners: Iterable[int]) -> dict[str, str]:
    """Job id -> state from the queue, or from accounting if the job has left the queue. owners: numbers of users."""
    if not job_ids:
        return {}
    wanted = ",".join(sorted({job_id.partition("_")[0] for job_id in job_ids}))
    accounts = _rows("sacct", "-o", "JobID,State,NodeList", "--parsable2", "-j", wanted)
    users = ",".join(map(str, sorted(owners)))
    queue = _rows("squeue", "--noheader", "--all", "--array", "--states=all", f"--user={users}", "--format=%i|%T")
    if accounts is None and queue is None:
        raise ConfigError("neither sacct nor squeue works here; use a login node of the cluster")
    # The queue overrides accounting, which may lag behind it.
    return {row[0]: row[1] for row in [*(accounts or []), *(queue or [])] if len(row) > 1}


def _rows(*command: str) -> list[list[str]] | None:
    """Output of a SLURM command, split at bars; None if it is missing, hangs or fails (sacct without accounting)."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return None
    return [line.split("|") for line in done.stdout.splitlines()] if done.returncode == 0 else None


def _local_state(job_id: str) -> str:
    """State of a job of submitit's local cluster, whose job id is a process id."""
    try:
        command = Path(f"/proc/{int(job_id)}/cmdline").read_bytes()
        zombie = ") Z " in Path(f"/proc/{int(job_id)}/stat").read_text()
    except (OSError, ValueError):
        return ""
    return "RUNNING" if b"submitit" in command and not zombie else ""


def last_lines(log: Path) -> list[str]:
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        text = file.read().decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()][-_TAIL:]


def jobs(argv: Sequence[str] | None = None) -> int:
    """`jepa jobs`: a table of submitted runs -> exit status."""
    parser = command_parser("jobs", "List submitted runs, and why they failed.", "runs")
    parser.add_argument("folder", nargs="?", default="runs", help="where to look for runs (default: runs)")
    return exit_status(lambda: _jobs(Path(parser.parse_args(argv).folder)))


def _jobs(folder: Path) -> int:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; name the one that holds the runs")
    found = statuses(find(folder))
    if not found:
        raise ConfigError(f"{folder} holds no submitted run")
    table = Table(box=None, pad_edge=False)
    for column in ("run", "job", "state", "step", "loss", "samples/s", "left", "attempts"):
        table.add_column(column, overflow="fold")
    for status in found:
        name = str(status.run_dir.relative_to(folder)) if status.run_dir != folder else folder.name
        step = f"{status.step}/{status.steps or '?'}"
        loss = "" if status.loss is None else f"{status.loss:.4f}"
        speed = "" if status.samples_per_second is None else f"{status.samples_per_second:.0f}"
        left = f"{status.minutes_left:.1f} min" if status.is_active and status.minutes_left is not None else ""
        table.add_row(shown(name), status.job_id, status.state, step, loss, speed, left, str(status.attempts))
    console = printer(width=None if sys.stdout.isatty() else 160, soft_wrap=True)
    console.print(table)
    for status in found:
        if status.state == "FAILED":
            console.print(f"\n{shown(status.run_dir)}: {shown(status.reason)}\n  log: {shown(status.log)}")
            for line in last_lines(status.log):
                console.print(f"  | {shown(line)}")
    return 0


def logs(argv: Sequence[str] | None = None) -> int:
    """`jepa logs RUN [-f]`: the log of a submitted run -> exit status."""
    parser = command_parser("logs", "Print the log of a submitted run.", "runs/cluster --follow")
    parser.add_argument("run", help="run directory")
    parser.add_argument("-f", "--follow", action="store_true", help="print new lines until the run ends")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _logs(submitted(arguments.run), arguments.follow))


def submitted(run: str) -> Path:
    """Directory of a submitted run, by its path or its name in `runs/`; raises ConfigError."""
    for path in (Path(run), Path("runs") / run):
        if (path / "job.json").exists():
            return path
    raise ConfigError(f"{run} is not the directory of a submitted run; `jepa jobs` lists them")


def _logs(run_dir: Path, follow: bool) -> int:
    log = statuses([run_dir])[0].log
    if not follow and not log.exists():
        raise ConfigError(f"no log yet at {log}; the run is {statuses([run_dir])[0].state}")
    with suppress(KeyboardInterrupt):  # stops printing; the run continues
        for text in _follow(log, lambda: follow and statuses([run_dir])[0].is_active):
            sys.stdout.write(text)
            sys.stdout.flush()
    return 0


def _follow(log: Path, is_active: Callable[[], bool]) -> Iterable[str]:
    """Text of a log as it is appended, until the run ends."""
    position, checked, active = 0, 0.0, True
    while active:
        if time.monotonic() - checked > 2:  # query the cluster less often than the file
            active, checked = is_active(), time.monotonic()
        if log.exists():
            with log.open("rb") as file:
                file.seek(position)
                new = file.read()
            position += len(new)
            yield new.decode(errors="replace")
        if active:
            time.sleep(_POLL)


def cancel(argv: Sequence[str] | None = None) -> int:
    """`jepa cancel RUN`: cancel submitted runs, which save if they can -> exit status."""
    parser = command_parser("cancel", "Cancel submitted runs; submit them again to resume.", "runs/cluster")
    parser.add_argument("run", nargs="+", help="run directory")
    return exit_status(lambda: _cancel([submitted(run) for run in parser.parse_args(argv).run]))


def _cancel(run_dirs: Sequence[Path]) -> int:
    for status in statuses(run_dirs):
        if not status.is_active:
            raise ConfigError(f"{status.run_dir} is not running: {status.state}")
        if read_job(status.run_dir)["cluster"] == "slurm":
            _scancel(status)
        else:
            os.kill(int(status.job_id), signal.SIGTERM)
        print(f"cancelled {shown(status.run_dir)} (job {status.job_id})")
    return 0


def _scancel(status: JobStatus) -> None:
    """Cancel a job of SLURM, and the one that would evaluate; raises ConfigError with SLURM's reason."""
    then = read_job(status.run_dir).get("evaluation", {}).get("job_id", status.job_id)
    try:
        command = ["scancel", *dict.fromkeys((status.job_id, then))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{status.run_dir} cannot be cancelled: {error}") from error
    if done.returncode != 0:
        raise ConfigError(f"{status.run_dir} cannot be cancelled: {done.stderr.strip() or 'scancel failed'}")
