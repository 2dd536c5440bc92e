"""Trials: one run of an arm each, made in a process of its own, and logged by that process when it ends."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

from benchmarks.study.arms import Arm, Changes
from benchmarks.study.log import Record, Watched, key_of, read
from jepa.config import ConfigError
from jepa.distributed import stop_on_signals
from jepa.modality import Modality
from jepa.settings.resolve import resolve
from jepa.training.config import Config

_SHOWN_LINES = 15  # of the output of a failed process
Part = Literal["search", "final", "curve"]
Split = Literal["validation", "test"]


class RunFailedError(RuntimeError):
    """A process failed; the message names its trial and holds the end of its output."""


class StoppedError(RuntimeError):
    """A signal asked to stop; the active runs have saved their state."""


@dataclass(frozen=True)
class Study:
    """What all trials on one data set share. place: settings that find the data. common: further settings.

    log: file of the records. work: folder of the runs. jobs: simultaneous runs, each with one thread.
    """

    data: str
    place: tuple[str, ...]
    common: tuple[str, ...]
    log: Path
    work: Path
    jobs: int

    @property
    def settings(self) -> list[str]:
        """Settings of all trials."""
        return [*self.common, *self.place]


@dataclass(frozen=True)
class Trial:
    """One run of an arm. about: what its record says beside the settings, such as the rung of a search."""

    study: Study
    part: Part
    arm: Arm
    changes: Changes
    steps: int
    seed: int
    split: Split
    about: dict[str, Any]

    @cached_property
    def own_settings(self) -> list[str]:
        """Settings of this trial over those of its arm and study."""
        protocol = ["evaluate.attentive=[1]"]
        if self.part == "search":  # cheaper: an evaluation takes as long as a short trial
            protocol = ["evaluate.attentive=[]", "evaluate.train_samples=5000", "evaluate.validation_samples=1000"]
        run = [f"seed={self.seed}", f"steps={self.steps}", f"evaluate.scored_split={self.split}"]
        return [*protocol, *overrides(self.changes), *run]

    @cached_property
    def identity(self) -> Record:
        """All that decides the outcome."""
        run = {"steps": self.steps, "seed": self.seed, "split": self.split}
        return {"part": self.part, **identity(self.study, self.arm, self.changes), **run}

    @cached_property
    def key(self) -> str:
        """Its name in the log."""
        return key_of(self.identity)

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return self.study.work / f"{self.arm.name}-{self.key}"

    def job(self) -> dict[str, Any]:
        """What the process that makes the run needs to know."""
        record = {"key": self.key, **self.identity, **self.about}
        settings = [*self.study.settings, *self.own_settings, f"run_dir={self.run_dir}"]
        return {"record": record, "settings": settings, "log": str(self.study.log)}


def identity(study: Study, arm: Arm, changes: Changes) -> Record:
    """All that decides what is trained, and nothing of this machine."""
    what = {"data": study.data, "arm": arm.name, "loop": arm.loop, "modality": arm.modality}
    return {**what, "changes": changes, "settings": [*study.common], "recipe": arm.recipe}


def overrides(changes: Mapping[str, Any]) -> list[str]:
    """Searched settings as on the command line."""
    return [f"{path}={json.dumps(value)}" for path, value in changes.items()]


def resolved(study: Study, arm: Arm, changes: Mapping[str, Any], steps: int) -> tuple[Config[Any, Any], Modality[Any]]:
    """Config and modality of a run of so many steps; raises ConfigError that names the arm."""
    try:
        return resolve(arm.modality, arm.recipe, [*study.settings, *overrides(changes), f"steps={steps}"])
    except ConfigError as error:
        raise ConfigError(f"{arm.name}: {error}") from error


def finish(trials: Sequence[Trial], study: Study) -> Iterator[Record]:
    """Make the trials that the log lacks, and yield the record of each when it is there.

    Other processes may work on the same trials: each run has a lock. On any early end, the active runs are stopped and
    save their state. Raises RunFailedError, StoppedError.
    """
    waiting = list({trial.key: trial for trial in trials}.values())
    running: dict[str, _Running] = {}
    log = Watched(study.log)
    with stop_on_signals() as stop_request:
        try:
            while waiting or running:
                records = log.records()
                for trial in [*waiting]:
                    if trial.key in records:
                        waiting.remove(trial)
                        yield records[trial.key]
                    elif trial.key not in running and len(running) < study.jobs and (started := _start(trial)):
                        running[trial.key] = started
                for one in [*running.values()]:
                    if one.ended():
                        del running[one.trial.key]
                time.sleep(0.1)
                if stop_request:
                    raise StoppedError(stop_request.signal_name)
        finally:
            for one in running.values():
                one.process.terminate()
            for one in running.values():
                one.process.wait()


@dataclass(frozen=True)
class _Running:
    """A run in progress. lock: held by its process too, so that a run outlives a killed study and is waited for."""

    trial: Trial
    process: "subprocess.Popen[bytes]"
    lock: TextIOWrapper

    def ended(self) -> bool:
        """Whether the process has ended well; raises RunFailedError."""
        status = self.process.poll()
        if status is None:
            return False
        self.lock.close()
        if status:
            trial = self.trial
            raise RunFailedError(f"{trial.arm.name} with {trial.changes} ended with status {status}; {_end(trial)}")
        return True


def _start(trial: Trial) -> _Running | None:
    """Start or resume a run; None if another process works on it, or has just logged it."""
    trial.run_dir.mkdir(parents=True, exist_ok=True)
    lock = trial.run_dir.with_name(f"{trial.run_dir.name}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    if trial.key in read(trial.study.log):
        lock.close()
        return None
    return _Running(trial, start_worker(trial.job(), trial.run_dir, lock.fileno()), lock)


def start_worker(job: dict[str, Any], folder: Path, lock: int) -> "subprocess.Popen[bytes]":
    """Start the process of a job, with one thread; its output goes to a file beside `folder`."""
    path = folder.with_name(f"{folder.name}.json")
    path.write_text(json.dumps(job))
    with path.with_suffix(".log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.study.worker", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            pass_fds=(lock,),
        )


def _end(trial: Trial) -> str:
    path = trial.run_dir.with_name(f"{trial.run_dir.name}.log")
    return f"{path}:\n" + "\n".join(path.read_text(errors="replace").splitlines()[-_SHOWN_LINES:])
