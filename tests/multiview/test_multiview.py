"""Several views of a sample without a teacher: data, encoder, projector, loss and gradients."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pages import Page
from pictures import write_class_images
from torch import Tensor

from jepa.checkpoint import Checkpoint, latest
from jepa.config import ConfigError
from jepa.cost.flops import run_flops
from jepa.cost.process_memory import Allocation, process_memory
from jepa.data import Batch, Order, TrainingBatches, open_split
from jepa.distributed import World
from jepa.encoder import VitSize
from jepa.launch import main, resolve
from jepa.loss import LossConfig, prediction_loss, total_loss
from jepa.masking import RandomMaskConfig
from jepa.model import JEPA
from jepa.model_config import ModelConfig
from jepa.ops.projector import BatchNorm, projector
from jepa.predictor import PredictorConfig
from jepa.report.page import write_report
from jepa.train import backward
from jepa.training.checks import check_config
from jepa.training.log import read_metrics
from jepa.training.networks import initial_model
from modalities.image import Image, ImageConfig


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    write_class_images(root, {"train": 4})
    return root


def image(photos: Path, **settings: Any) -> Image:
    usual: dict[str, Any] = {"image_size": 16, "patch_size": 4, "local_size": 8, "views": 2, "mask_sets": 2}
    usual["masking"] = RandomMaskConfig(ratio=0.25)
    return Image(ImageConfig(source="folder", root=photos, **{**usual, **settings}))


def batch_of(modality: Image, rank: int = 0, processes: int = 1) -> Batch:
    order = Order(seed=3, batch_size=8, rank=rank, world_size=processes, accumulate=1)
    batch = TrainingBatches(modality, open_split(modality, "train"), order, 0.1)[2]
    assert isinstance(batch, Batch)
    return batch


def test_smaller_views_come_with_the_batch_and_change_nothing_else(photos: Path) -> None:
    batch, without = batch_of(image(photos, local_views=3)), batch_of(image(photos))
    assert [view.shape for view in batch.local] == [(8, 3, 8, 8)] * 3
    assert {view.dtype for view in (*batch.views, *batch.local)} == {torch.uint8}
    assert all(torch.equal(one, other) for one, other in zip(batch.views, without.views, strict=True))
    halves = [batch_of(image(photos, local_views=3), rank, 2) for rank in range(2)]
    for number, view in enumerate(batch.local):
        assert torch.equal(view, torch.cat([half.local[number] for half in halves]))
        assert torch.equal(view, torch.cat([part.local[number] for part in batch.split(2)]))
    assert not torch.equal(*batch.local[:2])


def networks(**settings: Any) -> ModelConfig:
    predictor = PredictorConfig(width=16, depth=1, heads=2)
    return ModelConfig(size=VitSize(width=32, depth=2, heads=2), predictor=predictor, **settings)


def plain_encoder(weights: dict[str, Tensor], patches: Tensor, where: Tensor) -> Tensor:
    """A vision transformer, written plainly: patches [B, K, C] at (row, column) [B, K, 2] -> mean token [B, 32]."""

    def linear(name: str, values: Tensor) -> Tensor:
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, values: Tensor) -> Tensor:
        return F.layer_norm(values, (32,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    frequencies = 10_000.0 ** (-torch.arange(8) / 8)
    angles = where.unsqueeze(-1) * frequencies  # [B, K, 2, 8]
    table = torch.cat([angles[:, :, 0].sin(), angles[:, :, 0].cos(), angles[:, :, 1].sin(), angles[:, :, 1].cos()], -1)
    tokens = linear("embedding.project", patches) + table
    for block in ("blocks.0", "blocks.1"):
        split = linear(f"{block}.attention.qkv", norm(f"{block}.norm1", tokens)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (2, 16)).transpose(1, 2) for part in split)
        scores = (query @ key.transpose(-1, -2) / 4).softmax(dim=-1)
        tokens = tokens + linear(f"{block}.attention.proj", (scores @ value).transpose(1, 2).flatten(2))
        hidden = F.gelu(linear(f"{block}.mlp.0", norm(f"{block}.norm2", tokens)))
        tokens = tokens + linear(f"{block}.mlp.2", hidden)
    return norm("norm", tokens).mean(dim=1)


def plain_loss(weights: dict[str, Tensor], batch: Batch, modality: Image, share: float) -> Tensor:
    """LeJEPA's loss: (1 - share) * distance to the mean of the whole views + share * SIGReg of each, times B."""
    vectors = []
    for number, view in enumerate([*batch.views, *batch.local]):
        size = 16 if number < 2 else 8
        pixels = (view / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]).div(
            torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        )
        patches = pixels.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        centres = (torch.arange(size // 4) + 0.5) * (16 / size) - 0.5  # the small grid spans the large one
        where = torch.cartesian_prod(centres, centres).expand(len(view), -1, -1)
        if number < 2:
            keep = batch.masks[number].context
            patches, where = (
                torch.stack([rows[k] for rows, k in zip(one, keep, strict=True)]) for one in (patches, where)
            )
        vectors.append(plain_encoder(weights, patches, where))
    rows = torch.cat(vectors)
    for layer in (0, 3):
        rows = rows @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        rows = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()
        rows = F.relu(rows * weights[f"{layer + 1}.weight"] + weights[f"{layer + 1}.bias"])
    views = (rows @ weights["6.weight"].T + weights["6.bias"]).unflatten(0, (4, len(batch.masks[0])))
    distance = (views - views[:2].mean(dim=0)).square().mean()
    generator, t, spread = torch.Generator().manual_seed(7), torch.linspace(-3, 3, 33), []
    for view in views:
        directions = F.normalize(torch.randn(6, 256, generator=generator), dim=0)
        empirical = torch.exp(1j * (view @ directions).unsqueeze(-1) * t).mean(dim=0)
        error = (empirical - torch.exp(-(t**2) / 2)).abs().square()
        spread.append(torch.trapezoid(error * torch.exp(-(t**2) / 2), t, dim=-1).mean())
    return (1 - share) * distance + share * len(views[0]) * torch.stack(spread).mean()


def test_loss_and_gradients_are_those_of_lejepa_written_plainly(photos: Path) -> None:
    """Two whole views without a quarter of their tokens and two smaller ones; gradients flow through all of them."""
    torch.manual_seed(0)
    modality, share = image(photos, local_views=2), 0.1
    batch = batch_of(modality)
    model = JEPA(networks(projector=(24, 12, 6), projector_norm="batch"), modality, ("views",))
    config = LossConfig(regulariser="sigreg", regulariser_weight=share * 8)
    output = model(batch.views, batch.masks, ("views",), batch.local)
    loss = prediction_loss(output.predictions, config, {"views": 1 - share}, output.local)
    total = total_loss(loss, output, config, "none", torch.Generator().manual_seed(7))
    total.backward()
    trained = {**dict(model.context_encoder.named_parameters()), **dict(model.projectors["tokens"].named_parameters())}
    weights = {name: one.detach().clone().requires_grad_() for name, one in trained.items()}
    expected = plain_loss(weights, batch, modality, share)
    expected.backward()
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-6)
    for name, one in trained.items():
        torch.testing.assert_close(one.grad, weights[name].grad, rtol=1e-4, atol=1e-5, msg=name)
    others = [*model.target_encoder.parameters(), *model.predictor.parameters()]
    assert not any(one.requires_grad for one in others)  # nothing waits for their gradients or decays them


def test_projectors_have_the_widths_of_the_config_and_batch_norm_that_of_torch() -> None:
    shapes = [tuple(one.shape) for one in projector(8, (32, 16, 4), "batch").parameters() if one.dim() == 2]
    assert shapes == [(32, 8), (16, 32), (4, 16)]
    names = [name for name, _ in projector(8, 6).named_parameters()]
    assert names == [f"{layer}.{part}" for layer in (0, 2, 3) for part in ("weight", "bias")]
    assert list(projector(8, 0).parameters()) == []
    rows = torch.randn(16, 5) * 3 + 1
    torch.testing.assert_close(BatchNorm(5)(rows), torch.nn.BatchNorm1d(5)(rows))


SMALL = [
    *("data.source=folder", "data.image_size=16", "data.patch_size=4", "model.size={width: 24, depth: 2, heads: 2}"),
    *("data.mask_sets=2", "data.views=2", "data.local_views=2"),
    *("data.masking={kind: random, ratio: 0.5}", "loss.regulariser=sigreg", "model.projector=[16,8]"),
    *("optim.batch_size=4", "evaluate.enabled=false", "evaluate.report=false", "compute.workers=0"),
]


def config_of(photos: Path, *overrides: str) -> tuple[Any, Any]:
    return resolve("image", {}, [*SMALL, f"data.root={photos}", *overrides])


def test_a_stage_of_views_leaves_the_predictor_alone_and_a_run_resumes_exactly(photos: Path, tmp_path: Path) -> None:
    stages = "stages=[{until: 0.5, predict: views}, {predict: {latent: 1, views: 0.2}}]"
    predictor = "model.predictor={width: 16, depth: 1, heads: 2}"
    command = [*SMALL, predictor, f"data.root={photos}", "steps=4", "keep_every=1", "optim.warmup=0", stages]
    command = ["--modality", "image", "--run-dir", str(tmp_path), *command]
    assert main(command) == 0
    first, half, end = (Checkpoint.load(tmp_path / f"checkpoints/step_{step}.pt").model for step in (1, 2, 4))
    for name, value in half.items():
        if name.startswith(("context_encoder.", "projectors.")):
            assert not value.equal(first[name])
        elif name.startswith("predictor."):  # neither trained nor decayed at first
            assert value.equal(first[name])
            assert not value.equal(end[name])
    shutil.copy(tmp_path / "checkpoints/step_2.pt", latest(tmp_path))
    assert main(command) == 0
    again = Checkpoint.load(latest(tmp_path))
    assert all(torch.equal(value, end[name]) for name, value in again.model.items())


def test_a_run_of_views_alone_logs_what_it_minimises_and_its_report_names_no_predictions(
    photos: Path, tmp_path: Path
) -> None:
    alone = ["stages=[{predict: views, teacher: {kind: frozen}}]", "steps=3", "log_every=1"]
    command = ["--modality", "image", "--run-dir", str(tmp_path), *SMALL, f"data.root={photos}", *alone]
    assert main(command) == 0
    assert all(line["total_loss"] > line["loss"] for line in read_metrics(tmp_path))
    report = Page(write_report(tmp_path)).text
    assert "It learned to give several views of a sample the same representation." in report
    assert "total loss" in report
    for absent in ("What it had to predict", "momentum", "to predict", "targets over inputs"):
        assert absent not in report.split("How to reproduce it")[0]


def test_the_weight_of_views_replaces_that_of_invariance(photos: Path) -> None:
    """Both pull the views of a sample together; a stage that predicts `views` does so once, by its weight."""
    settings = ["steps=4", "stages=[{until: 0.5, predict: latent}, {predict: {latent: 1, views: 0.5}}]"]
    totals = []
    for invariance in (0, 100):
        config, modality = config_of(photos, *settings, f"loss.invariance={invariance}")
        model = initial_model(config, modality, World(0, 1, torch.device("cpu")))
        totals.append([backward(config, step, model, batch_of(modality))[1] for step in (0, 2)])
    (without, views), (pulled, again) = totals
    assert pulled > 1.01 * without
    assert again == views


def test_views_alone_may_hide_no_token_and_cost_nothing_but_the_encoder(photos: Path) -> None:
    alone = ["stages.0.predict=views", "data.masking.ratio=0"]
    configs = [config_of(photos, *alone, f"data.local_views={count}") for count in (1, 2, 3)]
    for config, modality in configs:
        check_config(config, modality)
    flops = [run_flops(*one) for one in configs]
    assert flops[2] - flops[1] == flops[1] - flops[0] > 0
    config, modality = configs[0]
    deeper = replace(config, model=replace(config.model, predictor=PredictorConfig(width=16, depth=3, heads=2)))
    assert run_flops(deeper, modality) == flops[0]
    fewest, most = (process_memory(*one, Allocation(gpus=0))["ddp"].activations for one in configs[::2])
    assert fewest < most


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.masking.ratio=0", "stages.0.predict={latent: 1, views: 1}"], r"^data\.masking: hides no tokens"),
        (["data.mask_sets=1", "data.views=1", "data.local_views=0"], r"^stages: .*or data\.local_views$"),
        (["loss.regulariser=none"], r"^loss\.regulariser: views alone collapse"),
        (["data.local_size=6"], r"patch_size 4 does not divide local_size 6 x 6"),
        (["stages.0.predict=latent"], r"^data\.local_views: has no effect: no stage predicts views"),
    ],
)
def test_views_that_cannot_be_learned_from_are_refused(photos: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(*config_of(photos, "stages.0.predict=views", *overrides))
