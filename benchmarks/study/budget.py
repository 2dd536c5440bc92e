"""Budgets of a run: floating-point operations, or minutes of two cores, as optimiser steps of each arm.

A minute of two cores is 90 CPU seconds of training with one thread: two processes on two cores train 1.5 times as fast
as one thread (benchmarks/results/scaling.json). CPU seconds of a step do not grow while a run waits for a busy core.
They are measured once in short runs that alternate between the arms, and logged; later load changes no budget.
"""

import fcntl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.study.arms import LOOPS, Arm, Changes
from benchmarks.study.log import key_of, read
from benchmarks.study.trials import RunFailedError, Study, identity, overrides, resolved, start_worker
from jepa.console import CONSOLE

CPU_SECONDS_A_MINUTE = 90.0
IMAGES = [640, 3200]  # of the short and the long run whose difference is measured
ROUNDS = 3
BudgetKind = Literal["minutes", "flops", "images"]
Settings = Mapping[str, Changes]  # by arm


@dataclass(frozen=True)
class Budget:
    """Budget of a run: minutes of two cores, floating-point operations, or images."""

    kind: BudgetKind
    amount: float


def step_costs(kind: BudgetKind, study: Study, arms: Sequence[Arm], settings: Settings) -> dict[str, float]:
    """Cost of a step of each arm, in the unit of the budget."""
    configs = {arm.name: resolved(study, arm, settings[arm.name], 100) for arm in arms}  # 100: whole stages
    match kind:
        case "images":
            return {name: float(config.optim.batch_size) for name, (config, _) in configs.items()}
        case "flops":
            return {arm.name: LOOPS[arm.loop].flops(*configs[arm.name]) / 100 for arm in arms}
        case "minutes":
            seconds = cpu_seconds(study, arms, settings)
            return {name: of_step / CPU_SECONDS_A_MINUTE for name, of_step in seconds.items()}


def cpu_seconds(study: Study, arms: Sequence[Arm], settings: Settings) -> dict[str, float]:
    """CPU seconds of one step of each arm with one thread: from the log, or measured now and logged."""
    study.work.mkdir(parents=True, exist_ok=True)
    with (study.work / "costs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        identities = {arm.name: {"part": "cost", **identity(study, arm, settings[arm.name])} for arm in arms}
        known, keys = read(study.log), {name: key_of(one) for name, one in identities.items()}
        missing = [arm for arm in arms if keys[arm.name] not in known]
        if missing:
            names = ", ".join(arm.name for arm in missing)
            CONSOLE.print(f"measuring the CPU seconds of a step: {names}", highlight=False)
            _measure(study, {arm.name: identities[arm.name] for arm in missing}, lock.fileno())
            known = read(study.log)
    return {name: known[key]["cpu_seconds_a_step"] for name, key in keys.items()}


def _measure(study: Study, identities: Mapping[str, dict[str, Any]], lock: int) -> None:
    """Measure in one process of one thread, which logs the costs; raises RunFailedError."""
    folder = study.work / f"costs-{time.time_ns()}"
    records = [{"key": key_of(one), **one} for one in identities.values()]
    place = [[*one["settings"], *study.place, *overrides(one["changes"])] for one in records]
    job = {"costs": records, "settings": place, "log": str(study.log)} | {"images": IMAGES, "rounds": ROUNDS}
    if status := start_worker(job, folder, lock).wait():
        raise RunFailedError(f"measuring costs ended with status {status}; see {folder.with_suffix('.log')}")
