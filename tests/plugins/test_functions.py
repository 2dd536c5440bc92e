"""Custom masks, targets and metrics: package.module:function in the config."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import MODEL, Noise, NoiseConfig, noise, random_masks
from torch import Generator

from jepa.config import ConfigError
from jepa.cost.describe import describe
from jepa.cost.process_memory import Allocation
from jepa.distributed import join
from jepa.evaluate.run import evaluate_run
from jepa.launch import main, resolve
from jepa.loss import LossConfig, prediction_loss
from jepa.masking import FunctionMaskConfig, check_masking, sample_masks
from jepa.model import JEPA
from jepa.report.page import write_report
from jepa.train import train

SMALL = [
    "steps=3", "log_every=1", "optim.batch_size=8", "compute.precision=fp32", "compute.workers=0",
    "model.size={width: 32, depth: 2, heads: 2}", "model.predictor={width: 16, depth: 1, heads: 2}",
    "evaluate.attentive=[]", "evaluate.forecast_samples=0", "data.samples=40",
]  # fmt: skip
MASKING = 'data.masking={"kind": "function", "function": "own_functions:halves", "options": {"swap": 0.5}}'


# --- masks


def test_a_custom_strategy_gets_its_options() -> None:
    grid = (4, 6)
    never = sample_masks(grid, FunctionMaskConfig(function="own_functions:halves"), 3, Generator().manual_seed(0))
    assert never.context.tolist() == [list(range(0, 24, 2))] * 3
    config = FunctionMaskConfig(function="own_functions:halves", options={"swap": 1.0})
    assert sample_masks(grid, config, 3, Generator()).context.tolist() == [list(range(1, 24, 2))] * 3


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"function": "own_functions:thirds"}, "'own_functions:thirds' does not exist: .* has no 'thirds'"),
        ({"function": "halves"}, "'halves' is not of the form package.module:name"),
        ({"function": "own_functions:unseeded"}, "unseeded draws other masks"),
        ({"function": "own_functions:overlapping"}, "tokens that are context and target of the same sample"),
        ({"function": "own_functions:halves", "options": {"swop": 1}}, r"fails on the grid \(4, 6\): TypeError.*swop"),
    ],
)
def test_invalid_custom_masks_are_refused_before_a_run(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_masking((4, 6), FunctionMaskConfig(**config))
    with pytest.raises(ConfigError, match=f"data: masking.function: .*{sentence}"):
        resolve("tiny:Noise", {}, [f"data.masking={json.dumps({'kind': 'function', **config})}"])


# --- targets


@pytest.mark.parametrize(("named", "function"), [("pixels", "patches"), ("latent", "last_layer")])
def test_a_custom_target_equal_to_a_built_in_one_gives_the_same_training(named: str, function: str) -> None:
    losses, gradients = [], []
    for kind in (named, f"own_functions:{function}"):
        torch.manual_seed(0)
        model = JEPA(MODEL, Noise(NoiseConfig()), (kind,))
        loss = prediction_loss(model([noise(4)], [random_masks(4)], (kind,)).predictions, LossConfig(), {kind: 1.0})
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.predictor.parameters()]))  # type: ignore[union-attr]
        assert all(weight.grad is None for weight in model.target_encoder.parameters())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("laten", r"stages.0.predict: 'laten' .* use latent, pixels, views, or a function as package.module:function"),
        ("own_functions:patch", "stages: 'own_functions:patch' does not exist: .* did you mean 'patches'?"),
        ("own_functions:of_sample", r"of_sample returns .* \[1, 32\] for .*; expected .* \[1, 24, V\]"),
        ("own_functions:of_numpy", r"of_numpy returns a ndarray for .*; expected a tensor of floats \[1, 24, V\]"),
        ("own_functions:of_classes", r"of_classes returns torch.int64 .* expected a tensor of floats"),
        ("own_functions:in_place", "in_place changes its inputs"),
        ("own_functions:halves", "stages: own_functions:halves fails on a view: TypeError"),
    ],
)
def test_invalid_custom_targets_are_refused_before_a_run(
    target: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--modality", "tiny:Noise", "--run-dir", str(tmp_path / "run"), *SMALL]
    assert main([*command, f"stages.0.predict={target}"]) == 1
    message = " ".join(capsys.readouterr().err.split())
    assert re.search(sentence, message), message
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_target_that_depends_on_values_trains_and_a_dry_run_refuses_it(tmp_path: Path) -> None:
    """Holds even if the first sample of the data cannot be read."""
    own = [*SMALL, "stages.0.predict=own_functions:by_value", "data.bad=[0]", f"run_dir={tmp_path / 'run'}"]
    config, modality = resolve("tiny:Noise", {}, own)
    assert train(config, modality, join("cpu"))
    with pytest.raises(ConfigError, match=r"by_value fails on a view: .*; a dry run and parallel=fsdp call it on"):
        describe(config, modality, Allocation())


# --- metrics, and all of them in one run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    functions = [
        {"function": "own_functions:nearest_mean", "label": "way"},
        {"function": "own_functions:nearest_mean", "label": "column"},
        {"function": "own_functions:failing", "label": "row", "higher_is_better": False},
    ]
    run_dir = tmp_path_factory.mktemp("runs") / "own"
    masking = MASKING.replace('{"swap": 0.5}', "{}")
    own = [
        masking,
        "stages.0.predict=own_functions:last_layer",
        "evaluate.low_shot_draws=1",
        f"evaluate.functions={json.dumps(functions)}",
    ]
    config, modality = resolve("moving:Moving", {}, [*SMALL, *own, f"run_dir={run_dir}"])
    train(config, modality, join("cpu"))
    evaluate_run(run_dir)
    return run_dir


def test_a_custom_metric_is_computed_for_every_baseline_too(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    row = results["tasks"]["way/own_functions:nearest_mean"]
    assert (row["metric"], row["higher_is_better"], row["train_samples"], row["test_samples"]) == (
        "nearest_mean", True, 40, 40,
    )  # fmt: skip
    columns = ("jepa", "random_init", "raw_input", "middle_moment", "motion_energy")
    assert all(0 <= row[column] <= 1 for column in columns)
    assert row["chance"] < 0.6
    assert "way/linear" in results["tasks"]


def test_a_failing_metric_is_noted_and_others_are_computed(run: Path) -> None:
    notes = json.loads((run / "results.json").read_text())["notes"]
    assert any("row/own_functions:failing is not measured: ZeroDivisionError: no such luck" in note for note in notes)
    assert any("column is not measured: no sample of the train split is labelled" in note for note in notes)


def test_report_and_cost_support_custom_functions(run: Path) -> None:
    page = write_report(run).read_text()
    assert "own_functions:last_layer" in page
    config, modality = resolve("tiny:Noise", {}, [*SMALL, "stages.0.predict=own_functions:patches", MASKING])
    assert "FLOP" in describe(config, modality, Allocation())


def test_a_custom_metric_gets_the_features_of_the_probes(run: Path) -> None:
    """A plain loop over the encoder gives the same number."""
    from jepa import load, load_modality

    encoder, modality = load(run, trust=True), load_modality(run, trust=True)
    pooled: dict[str, list[torch.Tensor]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    for split in ("train", "test"):
        samples = modality.dataset(split)  # type: ignore[arg-type]
        for index in range(len(samples)):
            views = torch.stack(list(modality.evaluation_views(samples[index].inputs)))
            pooled[split].append(encoder(views).mean(dim=(0, 1)))
            labels[split].append(int(samples[index].labels["way"]))
    training = list(zip(pooled["train"], labels["train"], strict=True))
    means = {way: torch.stack([vector for vector, label in training if label == way]).mean(dim=0) for way in range(4)}
    guesses = [min(means, key=lambda way: float((means[way] - vector).norm())) for vector in pooled["test"]]
    expected = sum(guess == label for guess, label in zip(guesses, labels["test"], strict=True)) / len(guesses)
    results = json.loads((run / "results.json").read_text())
    assert results["tasks"]["way/own_functions:nearest_mean"]["jepa"] == pytest.approx(expected, abs=0.026)


@pytest.mark.parametrize(("function", "reason"), [("nearest_men", "does not exist"), ("nearest_mean", "listed twice")])
def test_metrics_that_an_evaluation_adds_are_checked_first(run: Path, function: str, reason: str) -> None:
    functions = [{"function": f"own_functions:{name}", "label": "way"} for name in ("nearest_mean", function)]
    with pytest.raises(ConfigError, match=rf"evaluate.functions.1: .*{reason}"):
        evaluate_run(run, layers=[{"evaluate": {"functions": functions}}])


def test_labels_that_are_no_numbers_are_noted_and_others_are_evaluated(tmp_path: Path) -> None:
    labels = [{"function": "own_functions:nearest_mean", "label": name} for name in ("place", "name", "class")]
    own = [*SMALL, f"evaluate.functions={json.dumps(labels)}", f"run_dir={tmp_path / 'run'}"]
    config, modality = resolve("own_functions:Placed", {}, own)
    train(config, modality, join("cpu"))
    results = evaluate_run(tmp_path / "run")
    assert [name for name in results["tasks"] if "nearest" in name] == ["class/own_functions:nearest_mean"]
    notes = "\n".join(results["notes"])
    assert "place/own_functions:nearest_mean is not measured: place is a map" in notes
    assert "name is not measured: no sample of the train split is labelled with a number" in notes


def test_a_misspelt_metric_is_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    functions = json.dumps([{"function": "own_functions:nearest_men", "label": "class"}])
    arguments = ["--modality", "tiny:Noise", "--run-dir", str(tmp_path / "run"), *SMALL]
    assert main([*arguments, f"evaluate.functions={functions}"]) == 1
    message = " ".join(capsys.readouterr().err.split())
    assert "evaluate.functions.0: 'own_functions:nearest_men' does not exist" in message
    assert "did you mean 'nearest_mean'?" in message
    assert not (tmp_path / "run" / "config.yaml").exists()
