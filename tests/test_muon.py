"""Muon: which weights it updates, its formula, gradients that are not finite, and resuming."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import small
from tiny import MODEL, Noise, NoiseConfig
from torch import nn

from jepa.checkpoint import Checkpoint, latest
from jepa.checkpoint.file import kept
from jepa.config import ConfigError
from jepa.distributed import World
from jepa.model import JEPA
from jepa.ops import muon
from jepa.optim import OptimConfig, RateFactor, build_optimizer, clip_gradient, set_schedule
from jepa.train import train

WORLD = World(0, 1, torch.device("cpu"))


def test_muon_updates_the_matrices_of_blocks_and_adamw_everything_else() -> None:
    model = JEPA(MODEL, Noise(NoiseConfig()))
    factor = RateFactor(prefix="context_encoder.blocks.0", factor=0.5)
    config = OptimConfig(optimizer="muon", rate_factors=(factor,))
    optimizer = build_optimizer(model, config)
    set_schedule(optimizer, 0, 10, config)
    groups = {id(one): group for group in optimizer.param_groups for one in group["params"]}
    blocks = [*model.context_encoder.fsdp_units(), *model.predictor.fsdp_units()]
    matrices = [layer.weight for block in blocks for layer in block.modules() if isinstance(layer, nn.Linear)]
    assert len(matrices) == 4 * (2 + 2)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {id(one) for one in trained if groups[id(one)]["orthogonal"]} == {id(one) for one in matrices}
    assert all(groups[id(one)]["weight_decay"] == pytest.approx(0.04) for one in matrices)
    first, second = (groups[id(one)]["lr"] for one in (matrices[0], matrices[4]))
    assert first == pytest.approx(second / 2)


def test_muon_finds_the_matrices_of_blocks_that_are_not_ours() -> None:
    block = nn.TransformerEncoderLayer(8, 2, 16)
    block.table = nn.Embedding(5, 8)
    attention = block.self_attn
    expected = [attention.in_proj_weight, attention.out_proj.weight, block.linear1.weight, block.linear2.weight]
    assert {*map(id, muon.block_matrices([block, block]))} == {*map(id, expected)}


def steps(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator)
    optimizer.step()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9 has no Muon")
def test_the_updates_are_those_of_torch() -> None:
    shapes = [(48, 16), (16, 48), (48, 16), (16, 16)]
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    others = [nn.Parameter(weight.detach().clone()) for weight in weights]
    initial = [weight.detach().clone() for weight in weights]
    settings = {"lr": 0.05, "weight_decay": 0.3}
    ours = muon.Muon([{"params": weights, "orthogonal": True}], fused=True, bf16=True, **settings)
    theirs = torch.optim.Muon(others, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw", **settings)
    for number in range(3):
        steps(ours, weights, number)
        steps(theirs, others, number)
    for weight, other, before in zip(weights, others, initial, strict=True):
        assert (weight - before).norm() > 0.1
        assert (weight - other).norm() < 0.02 * (other - before).norm()  # bf16 rounds to 0.004


def test_networks_without_matrices_for_muon_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = JEPA(MODEL, Noise(NoiseConfig()))
    monkeypatch.setattr(JEPA, "fsdp_units", lambda model: [])
    with pytest.raises(ConfigError, match=r"^optim\.optimizer: muon finds no matrices"):
        build_optimizer(model, OptimConfig(optimizer="muon"))


def test_a_gradient_that_is_not_finite_changes_no_weight_and_no_state() -> None:
    model = JEPA(MODEL, Noise(NoiseConfig()))
    optimizer = build_optimizer(model, OptimConfig(optimizer="muon", peak_lr=0.1))
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for number in range(2):
        for parameter in weights:
            parameter.grad = torch.randn_like(parameter)
        weights[5].grad.flatten()[0] = torch.nan if number else 1.0
        before = [one.clone() for one in tensors(model, optimizer)]
        clip_gradient(optimizer, 1.0)
        optimizer.step()
        changed = [not torch.equal(one, other) for one, other in zip(before, tensors(model, optimizer), strict=False)]
        assert any(changed) is (number == 0)


def tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [*model.parameters(), *(one for state in optimizer.state.values() for one in state.values())]


def test_a_resumed_run_ends_with_the_same_bits_and_the_other_optimiser_is_refused(tmp_path: Path) -> None:
    size = ("model.size={width: 24, depth: 2, heads: 2}", "model.predictor={width: 16, depth: 1, heads: 2}")
    config, modality = small(
        "modality=tiny:Noise", *size, "steps=4", "keep_every=2", "optim.batch_size=8", "optim.optimizer=muon"
    )
    config = replace(config, run_dir=tmp_path / "run")
    assert train(config, modality, WORLD)
    ended = Checkpoint.load(latest(config.run_dir))
    assert {len(state) for state in ended.optimizer["state"].values()} == {1, 3}
    shutil.copy(kept(config.run_dir, 2), latest(config.run_dir))
    with pytest.raises(ConfigError, match=r"another config: optim\.optimizer \(muon"):
        train(replace(config, optim=replace(config.optim, optimizer="adamw")), modality, WORLD)
    assert train(config, modality, WORLD)
    again = Checkpoint.load(latest(config.run_dir))
    assert all(torch.equal(value, ended.model[name]) for name, value in again.model.items())
    for index, state in ended.optimizer["state"].items():
        assert all(torch.equal(value, again.optimizer["state"][index][name]) for name, value in state.items())
