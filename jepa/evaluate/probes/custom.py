"""Custom metrics: a user's function scores the frozen features and, in the same way, every baseline."""

from collections.abc import Mapping

import torch

from jepa.config.imports import describe_error, imported
from jepa.data import seeded
from jepa.evaluate.splits import Examples, Splits
from jepa.evaluate.table import Row
from jepa.probe.protocol import FunctionTask


class FunctionError(ValueError):
    """A custom metric returned no finite number; the message is one sentence for the user."""


def function_row(task: FunctionTask, columns: Mapping[str, Splits[Examples]]) -> Row:
    """A row of results: the function's score on the features of every column, and on shuffled features (chance).

    Chance is the score of the trained features shuffled within each split while labels stay. Raises FunctionError.
    """
    scores = {column: _score(task, examples) for column, examples in columns.items()}
    shuffled = columns["jepa"].map(_shuffled)
    return {
        "metric": task.function.partition(":")[2],
        "higher_is_better": task.higher_is_better,
        **scores,
        "chance": _score(task, shuffled),
        "train_samples": len(shuffled.train),
        "validation_samples": len(shuffled.validation),
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
    except Exception as error:  # user code may raise anything, which must not lose the other tasks
        raise FunctionError(f"{task.name} is not measured: {describe_error(error)}") from error
    if score != score or abs(score) == float("inf"):
        raise FunctionError(f"{task.name} is not measured: the function returned {score}")
    return score
