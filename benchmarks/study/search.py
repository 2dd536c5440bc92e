"""Successive halving: many short trials of each arm, then the best third with three times the budget, and so on.

A trial of the next rung is a separate run, not the earlier one continued: learning rate, stages and teacher are
functions of the share of the run that is done, so the first third of a long run is another run than a short one.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.study.arms import Arm, Changes, design
from benchmarks.study.budget import ROUGH, Budget, step_costs
from benchmarks.study.log import Record, read
from benchmarks.study.trials import Study, Trial, finish, identity
from jepa.config import ConfigError

RANKED_BY = ("class/linear", "class/knn", "class/low_shot_12")
FACTOR = 3  # of the budget from rung to rung; as many times fewer trials


def search(study: Study, arms: Sequence[Arm], trials: int, budget: Budget) -> Iterator[Record]:
    """Make the trials of all arms, rung by rung, and yield their records. budget: of a trial of the first rung."""
    points = {arm.name: design(arm.search, trials) for arm in arms if arm.search}
    for rung in range(rungs(trials)):
        of_rung = [
            (arm, changes)
            for number in range(trials)
            for arm in arms
            for changes in points.get(arm.name, [])[number : number + 1]
        ]
        costs = step_costs(budget.kind, study, of_rung, ROUGH)
        larger = Budget(budget.kind, budget.amount * FACTOR**rung)
        about = {"rung": rung, **larger.facts}
        planned = [
            Trial(study, "search", *point, larger.steps(cost), 0, "validation", about)
            for point, cost in zip(of_rung, costs, strict=True)
        ]
        records = []
        for record in finish(planned, study):
            records.append(record)
            yield record
        points = {name: _best_third([one for one in records if one["arm"] == name]) for name in points}


def rungs(trials: int) -> int:
    """Number of rungs: the last one has at most three trials, of which the best is the result."""
    return 1 if trials <= FACTOR else 1 + rungs(math.ceil(trials / FACTOR))


def best(study: Study, arm: Arm, searched_in: Path | None = None) -> Changes:
    """The best settings among the trials of the largest budget; raises ConfigError for none or several units or sets.

    searched_in: log of a study of other data, whose trials decide.
    """
    if not arm.search:
        return {}
    log, free = (searched_in, ("data", "settings")) if searched_in else (study.log, ())
    records = [one for one in read(log).values() if _is_of(one, study, arm, free)]
    if not records:
        raise ConfigError(f"{log} has no trial of {arm.name} as its file now is; run the search first")
    if len(units := {one["unit"] for one in records}) > 1:
        raise ConfigError(f"{log} has searches of {arm.name} by {' and '.join(sorted(units))}; use another --log")
    if len(places := {(one["data"], *one["settings"]) for one in records}) > 1:
        found = " and ".join(" ".join(place) for place in sorted(places))
        raise ConfigError(f"{log} has searches of {arm.name} on {found}; use a log with one of them")
    largest = max(one["budget"] for one in records)
    changes: Changes = max((one for one in records if one["budget"] == largest), key=ranking)["changes"]
    return changes


def ranking(record: Record) -> float:
    """Mean of linear probe, k-NN and few labels of the trained encoder; a failed trial is the last."""
    if "failed" in record:
        return -math.inf
    return fmean(record["scores"][row]["jepa"] for row in RANKED_BY)


def _is_of(record: Record, study: Study, arm: Arm, free: Sequence[str]) -> bool:
    """Whether a record is a trial of the search of an arm as its file now is. free: keys that may differ."""
    if record["part"] != "search":
        return False
    wanted = identity(study, arm, record["changes"])
    return all(record.get(key) == value for key, value in wanted.items() if key not in free)


def _best_third(records: Sequence[Record]) -> list[Changes]:
    ranked = sorted(records, key=lambda one: (-ranking(one), one["key"]))  # the key: records come in any order
    return [one["changes"] for one in ranked[: math.ceil(len(ranked) / FACTOR)]]
