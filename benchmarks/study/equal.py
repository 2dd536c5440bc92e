"""Runs of equal budget with the best settings of each arm: finals with several seeds, and curves over the budget."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.study.arms import Arm
from benchmarks.study.budget import EXACT, Budget, step_costs
from benchmarks.study.log import Record
from benchmarks.study.search import best
from benchmarks.study.trials import Part, Split, Study, Trial, finish

MINUTES = (1, 3, 10, 30, 100)  # of two cores


def equal_runs(
    study: Study,
    arms: Sequence[Arm],
    part: Part,
    budgets: Sequence[Budget],
    seeds: int,
    split: Split,
    searched_in: Path | None = None,
) -> Iterator[Record]:
    """Make the missing runs, those of small budgets first, and yield the records.

    Each budget is a run of its own, as schedules end with the run: what a user gets who trains for so long.
    searched_in: log of a study of other data, whose searches found the settings.
    """
    points = [(arm, best(study, arm, searched_in)) for arm in arms]
    planned = []
    for budget in budgets:
        costs = step_costs(budget.kind, study, points, EXACT)
        planned += [
            Trial(study, part, *point, budget.steps(cost), seed, split, budget.facts)
            for seed in range(seeds)
            for point, cost in zip(points, costs, strict=True)
        ]
    yield from finish(planned, study)
