"""Methods and their runs: one process per run; finished runs are not repeated."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks import supervised
from jepa.config import ConfigError, Tree, merge, read_yaml, to_yaml
from jepa.config.recipes import read_recipe
from jepa.console import CONSOLE
from jepa.cost.flops import run_flops
from jepa.distributed import stop_on_signals
from jepa.launch import resolve
from jepa.modality import Modality
from jepa.training.config import Config
from jepa.training.log import read_metrics

FOLDER = Path(__file__).resolve().parent / "methods"
_CALIBRATION = ("steps=200", "log_every=20", "evaluate.enabled=false")  # the first lap is warming up
_CALIBRATIONS = 2  # runs of each method
_SHOWN_LINES = 15  # of the log of a failed run
BudgetKind = Literal["seconds", "flops", "steps"]


class RunFailedError(RuntimeError):
    """A run failed; the message names it and holds the end of its log."""


class StoppedError(RuntimeError):
    """A signal asked to stop; the active runs have saved their state."""


@dataclass(frozen=True)
class Loop:
    """A training program. module: for `python -m`, with the command line of jepa.launch. flops: of a whole run."""

    module: str
    flops: Callable[[Config[Any, Any], Modality[Any]], float]


LOOPS = {
    "pretraining": Loop("jepa.launch", run_flops),
    "supervised": Loop("benchmarks.supervised", supervised.run_flops),
}


@dataclass(frozen=True)
class Method:
    """A method of pretraining. recipe: that of images with the settings of the method over it."""

    name: str
    loop: Loop
    recipe: Tree


def read_method(name: str) -> Method:
    """Read a method by its name in benchmarks/methods/ or by the path of such a file.

    The file holds settings over configs/image.yaml and may name a `loop`. Raises ConfigError.
    """
    path = FOLDER / f"{name}.yaml" if (FOLDER / f"{name}.yaml").is_file() else Path(name)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise ConfigError(f"no method '{name}'; methods: {names}, or the path of a YAML file")
    tree = read_yaml(path)
    loop = tree.pop("loop", "pretraining")
    if loop not in LOOPS:
        raise ConfigError(f"{path}: loop: should be one of {', '.join(LOOPS)}, not {loop!r}")
    return Method(path.stem, LOOPS[loop], merge(read_recipe("image"), tree))


@dataclass(frozen=True)
class Run:
    """A run of one method with one seed."""

    method: Method
    seed: int
    settings: tuple[str, ...]
    run_dir: Path

    @property
    def finished(self) -> bool:
        """Whether the run has been trained and evaluated."""
        return (self.run_dir / "results.json").exists()

    def results(self) -> dict[str, Any]:
        """Read results.json, and the `head` accuracy of a supervised run."""
        results: dict[str, Any] = json.loads((self.run_dir / "results.json").read_text())
        head = self.run_dir / "head.json"
        return {**results, "head": json.loads(head.read_text())["accuracy"]} if head.exists() else results

    @property
    def log(self) -> Path:
        """File with the output of the run."""
        return self.run_dir.with_name(f"{self.run_dir.name}.log")

    def start(self, threads: int, lock: int) -> "subprocess.Popen[bytes]":
        """Start or resume. lock: file descriptor that the process holds open until it ends."""
        self.run_dir.parent.mkdir(parents=True, exist_ok=True)
        recipe = self.run_dir.with_name(f"{self.run_dir.name}.yaml")
        # A complete config, as of a run: settings of the recipe below a method may have no effect in it.
        recipe.write_text(to_yaml({"modality": "image", **self.method.recipe}))
        command = [sys.executable, "-m", self.method.loop.module, "--modality", "image", "--config", str(recipe)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--run-dir", str(self.run_dir), *self.settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                pass_fds=(lock,),
            )


def planned_run(method: Method, seed: int, steps: int, common: Sequence[str], work: Path) -> Run:
    """A run in a directory named by its config, so that results of different recipes stay apart."""
    settings = (*common, f"seed={seed}", f"steps={steps}")
    config, _ = resolve("image", method.recipe, settings)
    return Run(method, seed, settings, work / f"{method.name}-{seed}-{config.run_dir.name}")


def finish(runs: Sequence[Run], jobs: int, lock: int) -> Iterator[Run]:
    """Make the runs, `jobs` at a time, and yield each when it is finished; first those finished before.

    On any early end, the active runs are stopped and save their state. Raises RunFailedError, StoppedError.
    """
    waiting = [run for run in runs if not run.finished]
    yield from (run for run in runs if run.finished)
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1) // jobs)
    running: dict[Path, tuple[Run, subprocess.Popen[bytes]]] = {}
    with stop_on_signals() as stop_request:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    running[run.run_dir] = (run, run.start(threads, lock))
                time.sleep(0.1)
                if stop_request:
                    raise StoppedError(stop_request.signal_name)
                for run, process in list(running.values()):
                    if process.poll() is not None:
                        del running[run.run_dir]
                        _check(run, process.returncode)
                        yield run
        finally:
            _stop([process for _, process in running.values()])


def _check(run: Run, status: int) -> None:
    if status:
        end = "\n".join(run.log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:])
        raise RunFailedError(f"{run.method.name} with seed {run.seed} ended with status {status}; {run.log}:\n{end}")


def _stop(processes: "Sequence[subprocess.Popen[bytes]]") -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def measured_speeds(methods: Sequence[Method], common: Sequence[str], work: Path, lock: int) -> dict[str, float]:
    """Samples per second of each method alone on the machine: median over short runs, in turn.

    The speeds are stored in `work`, so that a repeated command plans the same steps.
    """
    path = work / "speeds.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    keys = {method.name: planned_run(method, 0, 1, common, work).run_dir.name for method in methods}
    folder = work / "calibration"
    shutil.rmtree(folder, ignore_errors=True)
    runs = [
        Run(method, turn, (*common, *_CALIBRATION), folder / f"{method.name}-{turn}")
        for turn in range(_CALIBRATIONS)
        for method in methods
        if keys[method.name] not in known
    ]
    found: dict[str, list[float]] = {}
    for run in finish(runs, jobs=1, lock=lock):
        first, *_, last = read_metrics(run.run_dir)
        batch = resolve("image", run.method.recipe, run.settings)[0].optim.batch_size
        speed = (last["step"] - first["step"]) * batch / (last["seconds"] - first["seconds"])
        found.setdefault(run.method.name, []).append(speed)
        CONSOLE.print(f"speed of {run.method.name}: {speed:.0f} samples/s", highlight=False)
    known |= {keys[name]: median(speeds) for name, speeds in found.items()}
    path.write_text(json.dumps(known, indent=1) + "\n")
    return {method.name: known[keys[method.name]] for method in methods}


@dataclass(frozen=True)
class Budget:
    """Budget of every method: seconds of training alone on the machine, floating-point operations, or steps."""

    kind: BudgetKind
    amount: float

    def steps(self, step_costs: Mapping[str, float]) -> dict[str, int]:
        """Steps of each method, from the costs of one step in the unit of the budget."""
        return {name: max(1, round(self.amount / cost)) for name, cost in step_costs.items()}


@contextmanager
def locked(work: Path) -> Iterator[int]:
    """Lock `work` -> file descriptor. Runs hold it as well, so runs of a killed call are waited for."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            CONSOLE.print(f"waiting for an earlier call that still works in {work}", highlight=False)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
