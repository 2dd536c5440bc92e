"""The process of one trial: python -m benchmarks.study.worker JOB.json

It trains, or resumes, evaluates, and appends the record to the log of the study. Or it measures costs of steps.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import provenance, supervised
from benchmarks.study.arms import LOOPS
from benchmarks.study.log import Record, append
from jepa.distributed import join
from jepa.errors import INTERRUPTED, exit_status
from jepa.evaluate.run import evaluate_run
from jepa.evaluate.table import columns
from jepa.settings.resolve import resolve
from jepa.training.finite import NonFiniteLossError


def main(argv: list[str]) -> int:
    """Do a job -> exit status."""
    path = Path(argv[0])
    job = json.loads(path.read_text())
    return exit_status(lambda: _costs(job) if "costs" in job else _trial(job, path.with_suffix(".cpu")))


def _trial(job: dict[str, Any], clock: Path) -> int:
    record = job["record"]
    loop = LOOPS[record["loop"]]
    config, modality = resolve(record["modality"], record["recipe"], job["settings"])
    world = join(config.compute.device)
    outcome: dict[str, Any]
    try:
        with _timed(clock):
            finished = loop.train(config, modality, world)
        if not finished:
            return INTERRUPTED
        outcome = _scores(evaluate_run(config.run_dir))
        if record["loop"] == "supervised":
            outcome["head"] = supervised.head_accuracy(config, modality, world.device)
    except NonFiniteLossError as error:  # an outcome of its settings, which would repeat
        outcome = {"failed": str(error)}
    facts = {
        "steps": config.steps,
        "images": config.steps * config.optim.batch_size,
        "flops": loop.flops(config, modality),
        "cpu_seconds": _cpu_seconds(clock),
        "machine": _machine(),
        "precision": config.compute.precision_on(world.device.type),
        "git": provenance.commit(),
    }
    append(Path(job["log"]), {**record, **facts, **outcome})
    return 0


def _costs(job: dict[str, Any]) -> int:
    """Measure the CPU seconds of a step at several points in turn, and log their medians."""
    pairs: list[tuple[Record, list[str]]] = [*zip(job["costs"], job["settings"], strict=True)]
    _seconds(*pairs[0], job["steps"][0])  # the first run of a process also loads and prepares what later ones use
    rounds = [[_step_cost(*pair, job["steps"]) for pair in pairs] for _ in range(job["rounds"])]
    for (record, _), costs in zip(pairs, zip(*rounds, strict=True), strict=True):
        if median(costs) <= 0:
            raise RuntimeError(f"{record['arm']}: more steps took less time, on a busy machine; start again")
        facts = {"machine": provenance.hardware()["cpu"], "git": provenance.commit()}
        append(Path(job["log"]), {**record, "cpu_seconds_a_step": median(costs), "rounds": costs, **facts})
    return 0


def _step_cost(record: Record, settings: list[str], lengths: list[int]) -> float:
    """CPU seconds of one step: the difference of a long and a short run, which start and end alike."""
    short, long = (_seconds(record, settings, steps) for steps in lengths)
    return (long - short) / (lengths[1] - lengths[0])


def _seconds(record: Record, settings: list[str], steps: int) -> float:
    """CPU seconds of a run of so many steps."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*settings, f"steps={steps}", f"run_dir={folder}/run", "compute.device=cpu"]
        config, modality = resolve(record["modality"], record["recipe"], words)
        before = time.process_time()
        if not LOOPS[record["loop"]].train(config, modality, join(config.compute.device)):
            raise SystemExit(INTERRUPTED)
        return time.process_time() - before


def _scores(results: dict[str, Any]) -> dict[str, Any]:
    """Scores by row and column (the trained encoder is `jepa`), and signs of collapse."""
    names = columns(results["tasks"])
    rows = {
        row: {name: round(scores[name], 5) for name in names if scores.get(name) is not None}
        for row, scores in results["tasks"].items()
    }
    signs = results["collapse"]
    rank = {"jepa": signs["rankme"], "random_init": signs["rankme_random_init"]}
    return {"scores": {**rows, "rankme": rank}, "target_std": signs["target_std"]}


def _machine() -> str:
    hardware = provenance.hardware()
    return str(hardware["gpu"] or hardware["cpu"])


@contextmanager
def _timed(path: Path) -> Iterator[None]:
    """Note the start of an attempt to train, and its CPU seconds at its end."""
    with path.open("a") as file:
        file.write("started\n")
    before = time.process_time()
    try:
        yield
    finally:
        with path.open("a") as file:
            file.write(f"{time.process_time() - before:.3f}\n")


def _cpu_seconds(path: Path) -> float | None:
    """CPU seconds of training over all attempts; None if a kill took the time of one."""
    lines = path.read_text().splitlines()
    ended = [float(line) for line in lines if line != "started"]
    return round(sum(ended), 1) if len(ended) == lines.count("started") else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
