"""Our step does what the published one does, written plainly (which ours is measured against) or by its authors.

The authors' code runs where `JEPA_OFFICIAL_CODE` names a folder with checkouts `ijepa/` and `jepa/`.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.steps.cases import CASES, Ours, Precision
from benchmarks.steps.measure import breakdown, cost
from benchmarks.steps.official import Official
from benchmarks.steps.plain import Plain, agreement

_TOY = ["model.size={width: 32, depth: 2, heads: 2}", "model.predictor.width=16", "model.predictor.heads=2"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_SIZES = {"small_images": [], "videos": ["data.frames=8", "data.image_size=64"]}


@pytest.mark.parametrize("case", _SIZES)
@pytest.mark.parametrize("fused", [True, False])
def test_loss_and_gradients_equal_those_of_the_published_step_written_plainly(case: str, fused: bool) -> None:
    ours = toy(case)
    loss, gradients = agreement(ours, Plain(ours, "fp32", fused))
    assert loss < 1e-6
    assert gradients < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", _SIZES)
def test_loss_and_gradients_equal_those_of_the_authors_code(case: str) -> None:
    checkout = Path(os.environ.get("JEPA_OFFICIAL_CODE", "")) / ("jepa" if case == "videos" else "ijepa")
    if "JEPA_OFFICIAL_CODE" not in os.environ or not checkout.is_dir():
        pytest.skip(f"JEPA_OFFICIAL_CODE names no folder with a checkout {checkout.name}/")
    ours = toy(case)
    theirs = Official(ours, "fp32", checkout)
    model, own = ours.model, {}
    for prefix, network in (("context_encoder.", theirs.encoder), ("predictor.", theirs.predictor)):
        named = {name.removeprefix("backbone."): one for name, one in network.named_parameters()}
        for name, value in model.get_submodule(prefix[:-1]).named_parameters():
            own[prefix + name] = named.pop(authors_name(name, prefix == "predictor.", case))
            own[prefix + name].data.copy_(value.view(own[prefix + name].shape))
        (table,) = named.values()  # of positions: theirs has rows and columns in another order
        table.data.copy_(model.get_submodule(prefix[:-1]).get_buffer("table"))
    theirs.target_encoder.load_state_dict(theirs.encoder.state_dict())
    loss = theirs._video_loss() if case == "videos" else theirs._image_loss()
    loss.backward()
    torch.testing.assert_close(ours.backward(), loss.detach(), rtol=1e-5, atol=0)
    for name, parameter in model.named_parameters():
        if not name.startswith("target_encoder."):
            assert parameter.grad is not None
            assert own[name].grad is not None
            gap = (parameter.grad - own[name].grad.view(parameter.shape)).norm() / parameter.grad.norm()
            assert gap < 1e-5, name


def toy(case: str) -> Ours:
    small = replace(CASES[case], batch_size=2)
    config, modality = small.build("fp32", [*_TOY, *_SIZES[case]])
    return Ours(config, modality, small.batch(modality))


def authors_name(name: str, of_predictor: bool, case: str) -> str:
    """Our name of a weight -> theirs."""
    if name == "mask_tokens.0" and case == "small_images":
        return "mask_token"
    words = {"embedding.project": "patch_embed.proj", "attention": "attn", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
    for ours, theirs in words.items():
        name = name.replace(ours, theirs)
    if not of_predictor:
        return name
    return name if name.startswith("mask_token") else f"predictor_{name.replace('project', 'proj')}"


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


def test_where_the_time_goes_is_told_by_kind_of_operation() -> None:
    class Gelu:
        def step(self) -> None:
            inputs = torch.zeros(2**20, requires_grad=True)
            torch.nn.functional.gelu(inputs).backward(inputs.detach())

        def modules(self) -> list[torch.nn.Module]:
            return []

    shares = breakdown(Gelu())
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["GELU"] > 0.5
