"""The plain published step, which ours is measured against, computes what ours does."""

from dataclasses import replace

import pytest
import torch

from benchmarks.steps.cases import CASES, Ours, Precision
from benchmarks.steps.measure import cost
from benchmarks.steps.plain import Plain, agreement

_TOY = ["model.size={width: 32, depth: 2, heads: 2}", "model.predictor.width=16", "model.predictor.heads=2"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_SIZES = {"small_images": [], "videos": ["data.frames=8", "data.image_size=64"]}


@pytest.mark.parametrize("case", _SIZES)
@pytest.mark.parametrize("fused", [True, False])
def test_plain_published_step_has_our_loss_and_gradients(case: str, fused: bool) -> None:
    small = replace(CASES[case], batch_size=2)
    config, modality = small.build("fp32", [*_TOY, *_SIZES[case]])
    ours = Ours(config, modality, small.batch(modality))
    loss, gradients = agreement(ours, Plain(ours, "fp32", fused))
    assert loss < 1e-6
    assert gradients < 1e-4


def test_flops_of_a_step_do_not_depend_on_its_precision_or_kernels() -> None:
    flops = []
    for precision in PRECISIONS:
        small = replace(CASES["small_images"], batch_size=2)
        config, modality = small.build(precision, _TOY)
        ours = Ours(config, modality, small.batch(modality))
        flops += [cost(method).flops for method in (ours, Plain(ours, precision, True), Plain(ours, precision, False))]
    assert min(flops) > 0.85 * max(flops)  # they embed more or fewer tokens


def test_cost_of_a_step_counts_what_the_backward_pass_needs_once() -> None:
    class Product:
        def __init__(self) -> None:
            self.layer = torch.nn.Linear(4, 8)
            self.inputs = torch.zeros(16, 4)

        def step(self) -> None:
            self.layer(self.inputs).square().sum().backward()

        def modules(self) -> list[torch.nn.Module]:
            return [self.layer]

    counted = cost(Product())
    assert counted.flops == 2 * (2 * 16 * 4 * 8)  # the product, and that of the weight's gradient
    assert counted.activation_bytes == 4 * (16 * 4 + 16 * 8)  # the inputs, and the output that is squared
