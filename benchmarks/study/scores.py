"""Scores of several runs, for tables and figures."""

import math
from collections.abc import Sequence
from statistics import stdev

from benchmarks.study.log import Record

FLOORS = {"random_init": "untrained", "raw_input": "raw pixels"}  # columns of every run


def floor_runs(runs: Sequence[Record]) -> list[Record]:
    """The runs that give the scores of untrained and raw pixels: those of one arm, as seeds are the same in all."""
    first = next((one["arm"] for one in runs if one["arm"] != "ijepa"), "ijepa")  # it has another initialisation
    return [one for one in runs if one["arm"] == first]


def values(runs: Sequence[Record], row: str, column: str) -> list[float]:
    """One score of every run that has it."""
    found = (one["scores"].get(row, {}).get(column) for one in runs)
    return [score for score in found if score is not None]


def error(scores: Sequence[float]) -> float:
    """Standard error of the mean over seeds; 0 for a single one."""
    return stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0


def spoken(arm: str) -> str:
    """Name of an arm in a page."""
    return arm.replace("_", " ")
