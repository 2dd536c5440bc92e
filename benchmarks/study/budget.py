"""Budgets of a run: floating-point operations, or minutes of two cores, as optimiser steps of each arm.

A minute of two cores is 90 CPU seconds of training with one thread: two processes on two cores train 1.5 times as fast
as one thread (benchmarks/results/scaling.json). CPU seconds of a step do not grow while a run waits for a core, but do
where other programs share its caches: measure on an idle machine. They are measured once in short runs that alternate
between the points, and logged; later load changes no budget.
"""

import fcntl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.study.arms import LOOPS, Arm, Changes
from benchmarks.study.log import Record, key_of, read
from benchmarks.study.trials import RunFailedError, Study, identity, overrides, resolved, start_worker
from jepa.console import CONSOLE

CPU_SECONDS_A_MINUTE = 90.0
BudgetKind = Literal["minutes", "flops", "images"]
Points = Sequence[tuple[Arm, Changes]]


@dataclass(frozen=True)
class Budget:
    """Budget of a run: minutes of two cores, floating-point operations, or images."""

    kind: BudgetKind
    amount: float

    def steps(self, cost: float) -> int:
        """How many steps of a cost it pays."""
        return max(1, round(self.amount / cost))

    @property
    def facts(self) -> Record:
        """What the record of a run says of its budget."""
        return {"budget": self.amount, "unit": self.kind}


@dataclass(frozen=True)
class Measurement:
    """How CPU seconds are measured. part: its name in the log. steps: of the short and the long run that differ."""

    part: str
    steps: tuple[int, int]
    rounds: int


EXACT = Measurement("cost", (20, 100), rounds=3)
ROUGH = Measurement("rough cost", (10, 30), rounds=1)  # for the many points of a search


def step_costs(kind: BudgetKind, study: Study, points: Points, measurement: Measurement) -> list[float]:
    """Cost of a step at each point, an arm with searched settings, in the unit of the budget."""
    configs = [resolved(study, arm, changes, 100) for arm, changes in points]  # 100: whole stages
    match kind:
        case "images":
            return [float(config.optim.batch_size) for config, _ in configs]
        case "flops":
            return [LOOPS[arm.loop].flops(*pair) / 100 for (arm, _), pair in zip(points, configs, strict=True)]
        case "minutes":
            return [seconds / CPU_SECONDS_A_MINUTE for seconds in cpu_seconds(study, points, measurement)]


def cpu_seconds(study: Study, points: Points, measurement: Measurement) -> list[float]:
    """CPU seconds of one step at each point with one thread: from the log, or measured now and logged."""
    study.work.mkdir(parents=True, exist_ok=True)
    with (study.work / "costs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        records = [{"part": measurement.part, **identity(study, arm, changes)} for arm, changes in points]
        keys, known = [key_of(one) for one in records], read(study.log)
        missing = [{"key": key, **one} for key, one in zip(keys, records, strict=True) if key not in known]
        if missing:
            names = ", ".join(dict.fromkeys(one["arm"] for one in missing))
            CONSOLE.print(f"measuring the CPU seconds of a step: {names}", highlight=False)
            _measure(study, missing, measurement, lock.fileno())
            known = read(study.log)
    return [known[key]["cpu_seconds_a_step"] for key in keys]


def _measure(study: Study, records: Sequence[Record], measurement: Measurement, lock: int) -> None:
    """Measure in one process of one thread, which logs the costs; raises RunFailedError."""
    folder = study.work / f"costs-{time.time_ns()}"
    place = [[*one["settings"], *study.place, *overrides(one["changes"])] for one in records]
    how = {"steps": measurement.steps, "rounds": measurement.rounds}
    job = {"costs": records, "settings": place, "log": str(study.log), **how}
    if status := start_worker(job, folder, lock).wait():
        raise RunFailedError(f"measuring costs ended with status {status}; see {folder.with_suffix('.log')}")
