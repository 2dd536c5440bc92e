"""Measures of one's own: a function scores frozen features, and the same function scores every baseline."""

from collections.abc import Mapping
from typing import Any

import torch

from jepa.config.imports import imported, told
from jepa.data import seeded
from jepa.evaluate.splits import Examples, Splits
from jepa.protocol import FunctionTask


class FunctionError(ValueError):
    """A measure did not give a number; its message is one sentence for the user."""


def measure_by_function(task: FunctionTask, columns: Mapping[str, Splits[Examples]]) -> dict[str, Any]:
    """A row of results: what the function makes of the features of every column, and of such that tell nothing.

    Chance is the function on the trained features of other samples: they are shuffled within each split, labels stay.
    Raises FunctionError.
    """
    scores = {column: _score(task, examples) for column, examples in columns.items()}
    shuffled = columns["jepa"].map(_shuffled)
    return {
        "metric": task.function.partition(":")[2],
        "higher_is_better": task.higher_is_better,
        **scores,
        "chance": _score(task, shuffled),
        "train_samples": len(shuffled.train),
        "test_samples": len(shuffled.test),
    }


def _shuffled(examples: Examples) -> Examples:
    order = torch.randperm(len(examples), generator=seeded("chance"))
    return Examples(examples.features[order], examples.labels)


def _score(task: FunctionTask, examples: Splits[Examples]) -> float:
    try:
        function = imported(task.function)
    except ValueError as error:
        raise FunctionError(f"{task.name} is not measured: {error}") from error
    try:
        score = float(function(examples))
    except Exception as error:  # whatever somebody's code raises: the other measures are not lost with it
        raise FunctionError(f"{task.name} is not measured: {told(error)}") from error
    if score != score or abs(score) == float("inf"):
        raise FunctionError(f"{task.name} is not measured: the function gives {score}")
    return score
