"""Forecasts: equal to a loop, blind to the future, exact on still inputs, unchanged by padding."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from moving import MODEL, Moving, MovingConfig
from tiny import LENGTHS, MODEL as SMALL_MODEL, NoiseConfig, PaddedNoise, padded, randomise
from torch import Tensor, nn

from jepa.checkpoint import Checkpoint, latest
from jepa.config import plain
from jepa.distributed import join
from jepa.evaluate.__main__ import main
from jepa.evaluate.forecast import Forecaster, Means, can_forecast, cut_grid, error_maps
from jepa.evaluate.run import evaluate_run
from jepa.launch import resolve
from jepa.masking import Masks
from jepa.model import JEPA
from jepa.model_config import ModelConfig
from jepa.report.page import write_report
from jepa.train import train

SMALL = (
    "compute.workers=0", "compute.precision=fp32", "optim.batch_size=16", "log_every=20", "data.samples=48",
    "model.size={width: 32, depth: 2, heads: 2}", "model.predictor={width: 32, depth: 2, heads: 2}",
)  # fmt: skip


def build(config: ModelConfig = MODEL, **settings: Any) -> tuple[Forecaster, Moving, Tensor]:
    """A forecaster with large random weights, its modality, and three inputs."""
    modality = Moving(MovingConfig(**settings))
    model = JEPA(config, modality)
    randomise(model)
    samples = modality.dataset("test")
    inputs = torch.stack([samples[index].inputs for index in range(3)])
    return Forecaster(model.eval(), cut_grid(modality.grid, 0, 0.5), normalise=False), modality, inputs


def test_a_cut_divides_the_grid_along_its_axis() -> None:
    cut = cut_grid((2, 3, 4), 1, 0.7)
    assert (len(cut.past), cut.horizons) == (16, 1)
    tokens = torch.arange(24).reshape(2, 3, 4)
    assert torch.equal(cut.past, tokens[:, :2].flatten())
    assert torch.equal(cut.last_slot, tokens[:, 1].flatten())
    assert torch.equal(cut.future[0], tokens[:, 2].flatten())
    assert cut_grid((4, 2), 0, 0.01).horizons == 3
    assert cut_grid((4, 2), 0, 0.99).horizons == 1


@pytest.mark.parametrize("layers", [1, 0, (0, 2)])
@pytest.mark.parametrize("joined", ["mean", "each"])
def test_forecasts_equal_a_loop_over_samples_and_slots(layers: Any, joined: Any) -> None:
    config = replace(MODEL, target_layers=layers, target_join=joined)
    forecaster, modality, inputs = build(config)
    model, cut = forecaster.model, forecaster.cut
    means = Means(torch.randn_like(model.targets(inputs)[0]), torch.randn_like(forecaster.last_slot(inputs)[0]))
    with torch.no_grad():
        forecasts = forecaster.forecasts(inputs, means)
        errors = {name: error_maps(forecast, forecaster.targets(inputs)) for name, forecast in forecasts.items()}
        assert ("rolled" in errors) == (joined == "each" or layers == 1)
        slots, space = modality.grid[0], 16
        for index, single in enumerate(inputs.split(1)):
            target = model.targets(single)[0]  # [N, L, D]
            seen = torch.arange(2 * space)[None]
            past = model.targets(single, masks=Masks.of_context(seen))[0, space:]
            context = model.context_encoder(single, seen)
            later = torch.arange(2 * space, slots * space)[None, None]
            predicted = model.predict(context, Masks(seen, later))[0, 0]
            for horizon in range(cut.horizons):
                here = slice((2 + horizon) * space, (3 + horizon) * space)
                expected = {
                    "direct": predicted[horizon * space : (horizon + 1) * space],
                    "repeat": past,
                    "repeat_centred": means.tokens[here] + (past - means.last_slot),
                    "mean": means.tokens[here],
                }
                for name, prediction in expected.items():
                    for token in range(space):
                        error = F.mse_loss(prediction[token], target[here][token])
                        torch.testing.assert_close(errors[name][index, horizon, token], error, rtol=1e-3, atol=1e-4)


def test_each_rolled_prediction_joins_the_context_of_the_next() -> None:
    forecaster, _, inputs = build()
    with torch.no_grad():
        rolled, direct = forecaster.rolled(inputs), forecaster.direct(inputs)
        torch.testing.assert_close(rolled[:, 0], direct[:, 0])
        seen = torch.arange(32).expand(3, -1)
        context = forecaster.model.context_encoder(inputs, seen)
        fed = F.layer_norm(rolled[:, 0, :, 0], (32,)) * context.std(-1, correction=0).mean(1)[:, None, None]
        fed = fed + context.mean(-1).mean(1)[:, None, None]
        known, later = torch.arange(48).expand(3, -1), torch.arange(48, 64).expand(3, 1, -1)
        expected = forecaster.model.predict(torch.cat((context, fed), dim=1), Masks(known, later))[:, 0]
    torch.testing.assert_close(rolled[:, 1], expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(rolled[:, 1], direct[:, 1], atol=1e-2)


def test_forecasts_do_not_depend_on_the_future() -> None:
    forecaster, _, inputs = build()
    changed = inputs.clone()
    changed[:, :, 4:] = torch.randn_like(changed[:, :, 4:])
    means = Means(torch.zeros(64, 1, 32), torch.zeros(16, 1, 32))
    with torch.no_grad():
        for name, forecast in forecaster.forecasts(inputs, means).items():
            torch.testing.assert_close(forecaster.forecasts(changed, means)[name], forecast)


def test_repeating_the_last_slot_is_exact_for_still_inputs_without_attention() -> None:
    forecaster, _, inputs = build(replace(MODEL, positions="rotary"), still=True)
    for block in forecaster.model.target_encoder.blocks:
        nn.init.zeros_(block.attention.proj.weight)  # so that a token depends neither on its position nor on others
        nn.init.zeros_(block.attention.proj.bias)
    with torch.no_grad():
        target = forecaster.targets(inputs)
        means = Means(torch.zeros(64, 1, 32), torch.zeros(16, 1, 32))
        still = error_maps(forecaster.forecasts(inputs, means)["repeat"], target)
        torch.testing.assert_close(still, torch.zeros_like(still), rtol=0, atol=1e-9)


def test_padding_changes_no_forecast_and_is_not_counted() -> None:
    model = JEPA(SMALL_MODEL, PaddedNoise(NoiseConfig()))
    randomise(model)
    forecaster = Forecaster(model.eval(), cut_grid((4, 6), 0, 0.5), normalise=False)
    found: list[dict[str, Tensor]] = []
    for seed in (0, 1):  # of the padding
        inputs = padded(seed)
        with torch.no_grad():
            past, whole = forecaster.last_slot(inputs), forecaster.token_targets(inputs)
            means = Means(whole[:1].mean(dim=0), past[:1].mean(dim=0))  # the first sample has no padding
            forecasts = forecaster.forecasts(inputs, means)
            found.append(
                {name: error_maps(forecast, forecaster.targets(inputs)) for name, forecast in forecasts.items()}
            )
    absent = (torch.arange(24) >= LENGTHS.unsqueeze(1))[:, 12:].unflatten(1, (2, 6))
    assert absent.any()
    assert not absent.all()
    for name, errors in found[0].items():
        torch.testing.assert_close(errors, found[1][name], equal_nan=True)
        assert torch.equal(errors.isnan(), absent if name != "repeat" else errors.isnan() | absent), name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "moving"
    settings = (f"run_dir={run_dir}", "steps=60", "optim.peak_lr=2e-3", "stages.0.teacher.start=0.9", *SMALL)
    train(*resolve("moving:UnlabelledMoving", {}, settings), join("cpu"))
    return run_dir


def test_a_run_is_evaluated_by_horizon(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = evaluate_run(trained)["forecast"]
    assert section == json.loads((trained / "results.json").read_text())["forecast"]
    assert (section["axis"], section["seen_slots"], section["horizons"]) == (0, 2, [1, 2])
    assert (section["train_samples"], section["test_samples"]) == (48, 48)
    names = ["direct", "rolled", "repeat", "repeat_centred", "mean"]
    assert list(section["errors"]) == list(section["spread"]) == names
    assert section["errors"]["direct"][0] == pytest.approx(section["errors"]["rolled"][0])
    assert section["errors"]["direct"][1] < section["errors"]["repeat"][1]  # after sixty steps
    assert "slots ahead" in capsys.readouterr().out


def untrained(run_dir: Path, name: str, *more: str) -> Path:
    """A run with initial weights."""
    config, modality = resolve(name, {}, (f"run_dir={run_dir}", *more, *SMALL))
    model = JEPA(config.model, modality, config.target_kinds)
    assert can_forecast(modality, config) == ("latent" in config.target_kinds)
    Checkpoint(1, 1.0, plain(config), model.state_dict(), {}).save(latest(run_dir))
    return run_dir


def test_forecasts_that_cannot_be_measured_are_omitted_with_a_note(trained: Path, tmp_path: Path) -> None:
    few = "evaluate.attentive=[]"
    longer = evaluate_run(trained, layers=["data.moments=12", few])
    assert "forecast" not in longer
    assert any("token grid of training" in note for note in longer["notes"])
    pixels = untrained(tmp_path / "pixels", "moving:UnlabelledMoving", few, "stages.0.predict=pixels")
    results = evaluate_run(pixels)
    assert "forecast" not in results
    assert any("did not predict representations" in note for note in results["notes"])
    assert "forecast" not in evaluate_run(untrained(tmp_path / "labelled", "moving:Moving", few), tasks=["row"])


def test_targets_that_a_file_names_are_called_only_if_it_is_trusted(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = ("from pathlib import Path", "Path('imported').touch()", "def values(inputs, encoder):", "    return inputs")
    Path("strange_targets.py").write_text("\n".join(code))
    checkpoint = Checkpoint.load(latest(trained))
    stages = [{**checkpoint.config["stages"][0], "predict": {"latent": 1.0, "strange_targets:values": 1.0}}]
    replace(checkpoint, config={**checkpoint.config, "stages": stages}).save(tmp_path / "foreign.pt")
    assert main(["foreign.pt", "evaluate.attentive=[]", "-o", "out"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Forecasts are not measured: they would call strange_targets:values, which foreign.pt names" in printed
    write_report(Path("out"))
    assert not Path("imported").exists()
