"""Cluster profiles, and submission of runs as a job or an array of jobs."""

import shlex
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from jepa.cluster.job import Command, write_job
from jepa.config import ConfigError, build, read_yaml
from jepa.console import shown
from jepa.disk import write_text

_HERE = Path(__file__).resolve().parent.parent
FOLDER = next((path for path in (_HERE / "profiles", _HERE.parent / "slurm") if path.is_dir()), _HERE / "profiles")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Resources and options of a job; null leaves a value to the cluster.

    cluster: `slurm`, or submitit's substitutes: `local` runs in the background here, `debug` in this process.
    tasks_per_node: processes per node; default one per GPU, or one. timeout_min: minutes until SLURM ends an attempt.
    signal_delay_s: how many seconds before that SLURM signals the run to save. max_requeues: attempts after the first.
    array_parallelism: limit on concurrent runs of a sweep. setup: shell lines before the run. log_dir: folder of logs
    and scripts, by default in the run directory. extra: more sbatch options, such as `exclusive` or `mail-type=END`.
    """

    cluster: Literal["slurm", "local", "debug"] = "slurm"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: PositiveInt = 1
    tasks_per_node: PositiveInt | None = None
    gpus_per_node: NonNegativeInt = 0
    cpus_per_task: PositiveInt = 1
    mem_gb: PositiveFloat | None = None
    timeout_min: PositiveInt = 60
    signal_delay_s: PositiveInt = 120
    max_requeues: NonNegativeInt = 20
    array_parallelism: PositiveInt = 8
    setup: tuple[str, ...] = ()
    log_dir: str = ""
    extra: tuple[str, ...] = ()

    @property
    def tasks(self) -> int:
        """Processes per node."""
        return self.tasks_per_node or max(1, self.gpus_per_node)

    @property
    def processes(self) -> int:
        return self.nodes * self.tasks


class Submission(NamedTuple):
    command: Command
    run_dir: Path  # absolute


def profile_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_profile(name_or_path: str, changes: dict[str, Any]) -> Profile:
    """Read an included profile by name, a YAML file by path, or `local` or `debug`, and apply changes."""
    if name_or_path in ("local", "debug"):
        return build(Profile, [{"cluster": name_or_path}, changes])
    for path in (FOLDER / f"{name_or_path}.yaml", Path(name_or_path)):
        if path.is_file():
            try:
                return build(Profile, [read_yaml(path), changes])
            except ConfigError as error:
                raise ConfigError(f"profile {path}: {error}") from error
    names = ", ".join([*profile_names(), "local", "debug"])
    raise ConfigError(f"--slurm {name_or_path} is neither a file nor a profile; profiles: {names}")


def submit(
    submissions: Sequence[Submission], profile: Profile, name: str, folder: Path, evaluated: Sequence[Path] = ()
) -> list[Any]:
    """Submit runs, several of them as one array -> their jobs, in order.

    folder: for logs and scripts, unless the profile names one. evaluated: directories of the runs that evaluate or
    report at their end. If a run has several nodes, a job of its own does that: otherwise all nodes would wait for one
    process. `jepa jobs` finds the runs by their job.json. Raises ConfigError with SLURM's message if it refuses.
    """
    executor, apart = _executor(profile, name, folder), set(evaluated) if profile.nodes > 1 else set()
    trained = [_trained_only(one.command) if one.run_dir in apart else one.command for one in submissions]
    with executor.batch() if len(submissions) > 1 else nullcontext():  # one command each, which can be requeued
        jobs = [_submitted(executor, command) for command in trained]
    for submission, job in zip(submissions, jobs, strict=True):
        content = {
            **_place(job),
            "cluster": profile.cluster,
            "submitted": time.time(),
            "arguments": list(submission.command.arguments),
            "directory": submission.command.directory,
        }
        write_job(submission.run_dir, content)
        if submission.run_dir in apart:
            then = evaluation_profile(profile, str(job.job_id))
            evaluating = _submitted(_executor(then, f"{name}-evaluation", folder), submission.command)
            write_job(submission.run_dir, {**content, "evaluation": _place(evaluating)})
    return jobs


def evaluation_profile(profile: Profile, job_id: str) -> Profile:
    """The job that evaluates a run after the job that trains it: one process, on one GPU if the run has any."""
    extra = [option for option in profile.extra if option.removeprefix("--") != "exclusive"]
    return replace(
        profile,
        nodes=1,
        tasks_per_node=1,
        gpus_per_node=min(1, profile.gpus_per_node),
        mem_gb=profile.mem_gb and profile.mem_gb / profile.tasks,
        # After a failed training the job would wait forever.
        extra=(*extra, f"dependency=afterok:{job_id}", "kill-on-invalid-dep=yes"),
    )


def _trained_only(command: Command) -> Command:
    return replace(command, arguments=("--train-only", *command.arguments))


def _submitted(executor: Any, command: Command) -> Any:
    from submitit.core.utils import FailedJobError  # only submission needs it

    try:
        return executor.submit(command)
    except FailedJobError as error:
        raise ConfigError(f"the cluster refuses the job: {' '.join(str(error).split())}") from error


def _place(job: Any) -> dict[str, str]:
    return {"job_id": str(job.job_id), "log": str(job.paths.folder / f"{job.job_id}_0_log.out")}


def script(submissions: Sequence[Submission], profile: Profile, name: str, folder: Path) -> Path:
    """Write the batch script of a submission without submitting it -> its path."""
    if profile.cluster != "slurm":
        raise ConfigError(f"--slurm-dry-run: cluster {profile.cluster} has no batch script")
    executor = _executor(profile, name, folder)._executor
    executor.folder.mkdir(parents=True, exist_ok=True)
    if len(submissions) > 1:
        executor.parameters["map_count"] = len(submissions)
    path = Path(executor.folder) / "submission_dry_run.sh"
    lines = [shown(shlex.join(run.command.arguments)) for run in submissions]
    comments = [f"# each task runs: python -m jepa.launch {line}" for line in lines]
    text = executor._make_submission_file_text(executor._submitit_command_str, "dry_run")
    write_text(path, "\n".join([text, *comments, ""]), path.with_suffix(".partial"))
    return path


def changes_of(nodes: int | None, gpus: int | None, hours: float | None, partition: str | None) -> dict[str, Any]:
    minutes = None if hours is None else max(1, round(hours * 60))
    given = {"nodes": nodes, "gpus_per_node": gpus, "timeout_min": minutes, "partition": partition}
    return {key: value for key, value in given.items() if value is not None}


def _executor(profile: Profile, name: str, folder: Path) -> Any:
    import submitit

    log_dir = Path(profile.log_dir).expanduser().absolute() if profile.log_dir else folder
    if profile.cluster == "slurm" and shown(log_dir) != str(log_dir):
        raise ConfigError(f"{log_dir}: SLURM accepts no folder with control characters or bytes that are not UTF-8")
    # At the earliest after half of the time limit, however short that is.
    profile = replace(profile, signal_delay_s=min(profile.signal_delay_s, profile.timeout_min * 30))
    limits = {"slurm_max_num_timeout": profile.max_requeues, "local_max_num_timeout": profile.max_requeues}
    try:
        executor = submitit.AutoExecutor(log_dir, cluster=profile.cluster, **limits)
        executor.update_parameters(**_parameters(profile, name))
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(f"cluster {profile.cluster}: {error}") from error
    return executor


def _parameters(profile: Profile, name: str) -> dict[str, Any]:
    shared = {
        "name": name,
        "nodes": profile.nodes,
        "tasks_per_node": profile.tasks,
        "cpus_per_task": profile.cpus_per_task,
        "gpus_per_node": profile.gpus_per_node or None,
        "mem_gb": profile.mem_gb,
        "timeout_min": profile.timeout_min,
        "stderr_to_stdout": True,
    }
    if profile.cluster == "debug":
        return shared
    if profile.cluster == "local":
        return {**shared, "local_setup": list(profile.setup) or None}
    pairs = (option.removeprefix("--").partition("=") for option in profile.extra)
    extra = {key: value if equals else True for key, equals, value in pairs}
    options = ("partition", "account", "qos", "constraint", "signal_delay_s", "array_parallelism")
    return {
        **shared,
        **{f"slurm_{name}": getattr(profile, name) for name in options},
        "slurm_setup": list(profile.setup) or None,
        "slurm_additional_parameters": {"requeue": True, **extra},  # requeue after node failures too
        # One dead process ends the job. Since 22.05, srun does not inherit the CPUs per task of the job.
        "slurm_srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={profile.cpus_per_task}"],
    }
