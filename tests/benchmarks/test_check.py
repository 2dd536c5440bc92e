"""The guard of CI says what became more expensive, and its counters count."""

import torch

from benchmarks import check
from benchmarks.steps.measure import cost


def test_what_grew_is_one_sentence_and_what_shrank_is_none() -> None:
    values = {"FLOPs of a step": 1000.0, "operations of a step": 100.0, "time of masks": 2.0}
    bounds = check.bounds_of(values)
    assert bounds == {"FLOPs of a step": 1010.0, "operations of a step": 105.0, "time of masks": 6.0}
    assert check.exceeded(values, bounds) == []
    grown = values | {"operations of a step": 2000.0, "FLOPs of a step": 1.0}
    expected = "operations of a step: 2,000, and the bound in benchmarks/bounds.json is 105"
    assert check.exceeded(grown, bounds) == [expected]


class Waiting:
    """A step that reads a number of the device, and allocates one tensor."""

    def step(self) -> object:
        return float(torch.ones(3).sum())

    def modules(self) -> list[torch.nn.Module]:
        return []


def test_a_number_that_the_host_reads_is_a_wait() -> None:
    assert cost(Waiting()).waits == 1


def test_allocations_of_a_call_are_counted() -> None:
    assert check.allocations(lambda: [torch.empty(1000) for _ in range(5)]) == 5
