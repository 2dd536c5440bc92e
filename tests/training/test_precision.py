"""`compute.precision=auto` chooses what is fast on this processor, the same in all processes."""

from statistics import median
from time import perf_counter
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from jepa.console import output
from jepa.distributed import World
from jepa.training.config import ComputeConfig
from jepa.training.numerics import numerics


def seconds(inputs: Tensor, weight: Tensor) -> float:
    """Median time of a product; the first one prepares the kernel."""
    linear(inputs, weight)
    times = []
    for _ in range(9):
        start = perf_counter()
        linear(inputs, weight)
        times.append(perf_counter() - start)
    return median(times)


def test_auto_is_the_precision_in_which_this_processor_multiplies_faster() -> None:
    inputs, weight = torch.randn(1024, 256), torch.randn(1024, 256)
    cost = {bf16: seconds(*(one.bfloat16() if bf16 else one for one in (inputs, weight))) for bf16 in (False, True)}
    chosen = ComputeConfig().uses_bf16("cpu")
    assert cost[chosen] < 1.5 * cost[not chosen], f"bf16 {chosen}, seconds of a product in fp32 and bf16: {cost}"


def test_a_stated_precision_is_taken_and_auto_on_a_planned_gpu_is_bf16() -> None:
    for device in ("cpu", "cuda", "mps"):
        assert ComputeConfig(precision="bf16").uses_bf16(device)
        assert not ComputeConfig(precision="fp32").uses_bf16(device)
    if not torch.cuda.is_available():
        assert ComputeConfig().uses_bf16("cuda")  # also where a cluster's GPUs are planned on a machine without one


def test_bf16_that_may_be_emulated_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    output.warn_once.cache_clear()
    for fast in (True, False):
        with (
            patch("jepa.training.numerics.has_fast_bf16", return_value=fast),
            numerics(ComputeConfig(precision="bf16"), World(0, 1, torch.device("cpu"))),
        ):
            said = " ".join(capsys.readouterr().err.split())
            assert ("may emulate" in said and "compute.precision=auto" in said) != fast
