"""Probes against independent implementations; evaluation of a checkpoint from its file to results.json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from moving import MODEL as MOVING_MODEL, Dots, Moving, MovingConfig
from pictures import write_class_images
from small_runs import save_untrained
from tiny import MODEL, NoiseConfig, PaddedNoise, randomise
from torch import Tensor

import jepa.evaluate.run
from jepa.checkpoint import Checkpoint, latest
from jepa.collapse import collapse_signs
from jepa.config import ConfigError, plain
from jepa.data import DataError
from jepa.evaluate.__main__ import main
from jepa.evaluate.features import Extractor, Features, TokenBudget
from jepa.evaluate.labels import constant_error, draw_examples
from jepa.evaluate.probes.linear import (
    ALPHA_GRID,
    TEMPERATURE,
    fit_logistic,
    knn,
    linear_probe,
    logits,
    low_shot,
    on_principal_axes,
    ridge,
)
from jepa.evaluate.reading import evaluated_indices, evaluation_splits
from jepa.evaluate.run import collapse_of, evaluate_run
from jepa.evaluate.splits import Examples, Splits
from jepa.launch import resolve
from jepa.model import JEPA
from jepa.probe.averages import pooling
from jepa.probe.protocol import EvaluateConfig
from jepa.training.config import ComputeConfig
from jepa.weights.opened import load_modality

CLASSES = 4
COLUMNS = ("jepa", "random_init", "raw_input")


def blobs(counts: tuple[int, int, int] = (120, 60, 80), width: int = 12, seed: int = 0) -> Splits[Examples]:
    """Overlapping clusters, one per class, on axes of very different scales."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, width, generator=generator)

    def split(count: int) -> Examples:
        labels = torch.randint(CLASSES, (count,), generator=generator)
        features = centres[labels] + 2 * torch.randn(count, width, generator=generator)
        return Examples(features * torch.logspace(-2, 2, width), labels)

    return Splits(*map(split, counts))


def projected(examples: Splits[Examples]) -> Splits[Examples]:
    axes = on_principal_axes(examples.map(lambda split: split.features))
    return axes.pair(lambda features, split: Examples(features, split.labels), examples)


def with_numbers(examples: Splits[Examples]) -> Splits[Examples]:
    """Number labels that depend on the features, with noise."""
    return examples.map(
        lambda split: Examples(split.features, split.features[:, -1] + 0.1 * split.labels + 3 * split.labels.sqrt())
    )


def standardised(examples: Splits[Examples], split: Examples) -> Tensor:
    train = examples.train.features
    return (split.features - train.mean(dim=0)) / train.std(dim=0, correction=0)


def test_k_nearest_neighbours_equal_a_loop_over_queries() -> None:
    examples = blobs()
    outcome = knn(examples, CLASSES)
    keys, correct = torch.nn.functional.normalize(examples.train.features, dim=1), 0
    for query, label in zip(examples.test.features, examples.test.labels, strict=True):
        cosines = keys @ (query / query.norm())
        votes = [0.0] * CLASSES
        for row in cosines.argsort(descending=True)[: int(outcome.setting)]:
            votes[examples.train.labels[row]] += float(torch.exp(cosines[row] / TEMPERATURE))
        correct += votes.index(max(votes)) == label
    assert outcome.score == pytest.approx(correct / len(examples.test))


@pytest.mark.parametrize("width", [12, 200])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_the_linear_probe_finds_the_optimum_of_scikit_learn(width: int, c: float) -> None:
    from sklearn.linear_model import LogisticRegression  # slow, and only this test needs it

    examples = blobs(width=width)
    axes = projected(examples)
    start = torch.zeros(CLASSES, axes.train.features.shape[1] + 1)
    probabilities = logits(fit_logistic(axes.train, c, start), axes.test.features).softmax(dim=1)
    reference = LogisticRegression(C=c, tol=1e-8, max_iter=5000)
    reference.fit(standardised(examples, examples.train).double().numpy(), examples.train.labels.numpy())
    expected = reference.predict_proba(standardised(examples, examples.test).double().numpy())
    np.testing.assert_allclose(probabilities.numpy(), expected, atol=2e-3)


def test_ridge_solves_the_normal_equations() -> None:
    examples = with_numbers(blobs())
    outcome = ridge(projected(examples))
    train, test = (standardised(examples, split).double() for split in (examples.train, examples.test))
    mean = examples.train.labels.double().mean()
    gram = train.T @ train + outcome.setting * torch.eye(train.shape[1], dtype=torch.float64)
    predicted = test @ torch.linalg.solve(gram, train.T @ (examples.train.labels.double() - mean)) + mean
    assert outcome.setting in ALPHA_GRID
    assert outcome.score == pytest.approx(float((predicted - examples.test.labels).square().mean().sqrt()), rel=1e-4)


@pytest.mark.parametrize("width", [12, 200])  # fewer and more than training samples
def test_principal_axes_keep_inner_products_of_standardised_features(width: int) -> None:
    examples = blobs(width=width)
    train, test = (standardised(examples, split) for split in (examples.train, examples.test))
    axes = projected(examples)
    torch.testing.assert_close(axes.train.features @ axes.train.features.T, train @ train.T, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(axes.test.features @ axes.train.features.T, test @ train.T, rtol=1e-3, atol=1e-2)


def test_a_constant_feature_changes_nothing() -> None:
    examples = blobs()
    more = examples.map(
        lambda split: Examples(torch.nn.functional.pad(split.features, (0, 1), value=7.0), split.labels)
    )
    assert linear_probe(projected(more), CLASSES) == linear_probe(projected(examples), CLASSES)


def test_features_that_are_all_constant_give_chance() -> None:
    same = blobs().map(lambda split: Examples(torch.full_like(split.features, 7.0), split.labels))
    commonest = same.train.labels.bincount().argmax()
    expected = float((same.test.labels == commonest).double().mean())
    assert linear_probe(projected(same), CLASSES).score == pytest.approx(expected)
    numbers = same.map(lambda split: Examples(split.features, split.labels.float()))
    expected = float((numbers.test.labels - numbers.train.labels.mean()).square().mean().sqrt())
    assert ridge(projected(numbers)).score == pytest.approx(expected)


def _low_shot(examples: Splits[Examples]) -> Any:
    return low_shot(examples, CLASSES, [draw_examples(examples.train.labels, 5, draw) for draw in range(3)])


@pytest.mark.parametrize(
    "probe", [lambda data: knn(data, CLASSES), lambda data: linear_probe(data, CLASSES), _low_shot, ridge]
)
def test_labels_of_the_test_split_choose_no_setting(probe: Callable[[Splits[Examples]], Any]) -> None:
    examples = projected(with_numbers(blobs()) if probe is ridge else blobs())
    order = torch.randperm(len(examples.test), generator=torch.Generator().manual_seed(1))
    shuffled = Splits(
        examples.train, examples.validation, Examples(examples.test.features, examples.test.labels[order])
    )
    honest, blind = probe(examples), probe(shuffled)
    if isinstance(honest, list):
        assert [outcome.setting for outcome in honest] == [outcome.setting for outcome in blind]
    else:
        assert honest.setting == blind.setting
        assert honest.score != blind.score


def test_probes_are_perfect_if_the_features_hold_the_label() -> None:
    labels = blobs().map(lambda split: split.labels)
    one_hot = labels.map(lambda values: Examples(torch.nn.functional.one_hot(values, CLASSES).float(), values))
    assert knn(one_hot, CLASSES).score == linear_probe(projected(one_hot), CLASSES).score == 1.0
    numbers = one_hot.map(lambda split: Examples(split.features, split.labels.float()))
    assert ridge(projected(numbers)).score < 1e-3


def test_features_of_padded_samples_equal_those_of_each_sample_alone() -> None:
    modality = PaddedNoise(NoiseConfig())
    encoder = modality.encoder(MODEL).eval()
    randomise(encoder)
    compute = ComputeConfig(workers=0, precision="fp32")
    extractor = Extractor(modality, {"jepa": encoder, "random_init": encoder}, (), 4, compute, lambda _: None)
    averaging = pooling(modality.grid, 6)
    budget = TokenBudget(tokens=6, sequences=6, pooling=averaging, normed=False)
    features = extractor.extract(modality.dataset("test"), range(6), budget)
    assert averaging is not None
    lengths = set()
    for number in range(6):
        values, length = modality.evaluation_view(modality.dataset("test")[number].inputs)
        layers = encoder.layers((values[None], length[None]), torch.arange(int(length))[None])
        means = [F.layer_norm(layer, layer.shape[-1:]).mean(dim=1)[0] for layer in layers]
        close = {"atol": 1e-4, "rtol": 1e-4}
        torch.testing.assert_close(features.last["jepa"][number], layers[-1].mean(dim=1)[0], **close)
        torch.testing.assert_close(features.last4["jepa"][number], torch.cat(means), **close)
        tokens = F.pad(layers[-1][0], (0, 0, 0, 24 - int(length)), value=torch.nan)
        torch.testing.assert_close(features.tokens["jepa"][number], tokens, equal_nan=True, **close)
        parts = [tokens[(part > 0) & (torch.arange(24) < length)] for part in averaging]
        sequence = torch.stack([part.mean(dim=0) for part in parts])  # NaN for parts that lack all of their tokens
        torch.testing.assert_close(
            features.sequences["jepa"][number, 0].float(), sequence, equal_nan=True, atol=0.02, rtol=0.02
        )
        lengths.add(int(length))
    assert len(lengths) > 2


def test_collapse_of_padded_samples_is_measured_without_their_padding() -> None:
    """Each sample has a vector of its own at all of its tokens, so padding alone could look like a collapse."""
    vectors = torch.randn(40, 1, 16)
    tokens = vectors.repeat(1, 6, 1)
    tokens[:, 3:] = torch.nan
    columns = dict.fromkeys(("jepa", "random_init"), vectors[:, 0])
    features = Features(columns, {}, {}, {"jepa": tokens}, {}, {})
    signs, whole = collapse_of(features, "test"), collapse_signs(vectors)
    assert (signs["target_std"], signs["cosine"]) == pytest.approx((whole.target_std, whole.cosine))


def test_low_shot_draws_are_balanced_and_repeatable_and_take_small_classes_whole() -> None:
    labels = torch.tensor([0] * 300 + [2] * 40 + [3] * 5)  # class 1 is missing
    rows = draw_examples(labels, 12, 0)
    assert labels[rows].bincount().tolist() == [12, 0, 12, 5]
    assert labels[draw_examples(labels, 0.01, 0)].bincount().tolist() == [3, 0, 1, 1]
    assert torch.equal(rows, draw_examples(labels, 12, 0))
    assert not torch.equal(rows, draw_examples(labels, 12, 1))


def test_evaluated_indices_are_random_and_fixed() -> None:
    few = evaluated_indices(1000, 50, "train")
    assert few == evaluated_indices(1000, 50, "train")
    assert len(set(few)) == 50
    assert max(few) > 500
    assert few != evaluated_indices(1000, 50, "test")
    assert sorted(evaluated_indices(7, 50, "train")) == list(range(7))


def test_chance_of_a_map_is_the_training_mean_of_each_token() -> None:
    train = torch.tensor([[0.0, 10.0, torch.nan], [2.0, 10.0, torch.nan], [1.0, 10.0, torch.nan]])
    labels = Splits(train, train, torch.tensor([[1.0, 12.0, torch.nan]]))
    assert constant_error(labels) == pytest.approx(2**0.5)


# Evaluation of a checkpoint ------------------------------------------------------------------------------------------


COUNTS = {"train": 90, "validation": 30, "test": 90}


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coloured")
    write_class_images(root / "data", COUNTS)
    return save_untrained(root / "run", root / "data")


def test_results_hold_every_row_with_its_baselines(coloured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = evaluate_run(coloured)
    assert json.loads((coloured / "results.json").read_text()) == results
    assert (results["modality"], results["steps"], results["train_seconds"]) == ("image", 3, 1.5)
    assert results["samples"] == 3 * 8
    assert results["samples_per_second"] == 16
    assert {"rankme", "rankme_random_init", "target_std", "cosine"} <= results["collapse"].keys()
    probes = ["linear", "linear_last4", "knn", "low_shot_12", "low_shot_1pct"]
    assert list(results["tasks"]) == [f"class/{probe}" for probe in probes]
    for row in results["tasks"].values():
        assert row["metric"] == "accuracy"
        assert row["higher_is_better"]
        assert row["chance"] == pytest.approx(1 / 3)
        assert (row["validation_samples"], row["test_samples"]) == (30, 90)
        assert row["test_labels"] == results["tasks"]["class/knn"]["test_labels"]
        assert row["raw_input"] > 0.9
        assert row["chosen"].keys() == set(COLUMNS)
        # Without training, both encoders are equal.
        assert row["jepa"] == row["random_init"]
    assert results["tasks"]["class/linear"]["jepa"] > 0.9
    assert results["tasks"]["class/low_shot_12"]["train_samples"] == 36
    assert results["tasks"]["class/low_shot_12"]["spread"].keys() == set(COLUMNS)
    assert f"{coloured} holds the networks of step 3 of 10,000." in results["notes"]
    shown = capsys.readouterr().out
    assert "class/low_shot_12" in shown
    assert "untrained" in shown


def test_images_without_information_on_their_class_give_chance(tmp_path: Path) -> None:
    write_class_images(tmp_path / "data", COUNTS, coloured=False)
    results = evaluate_run(save_untrained(tmp_path / "run", tmp_path / "data"), tasks=["class/linear", "class/knn"])
    for row in results["tasks"].values():
        for column in COLUMNS:
            assert abs(row[column] - 1 / 3) < 0.2  # four standard deviations of 90 guesses


def test_other_settings_and_single_tasks_do_not_overwrite_the_results_of_the_run(coloured: Path) -> None:
    own = coloured / "results.json"
    own.write_text("mine")
    assert main(["--task", "class/linear", str(coloured), "data.image_size=24", "evaluate.test_samples=30"]) == 0
    (written,) = (coloured / "evaluations").glob("*.json")
    assert json.loads(written.read_text())["tasks"]["class/linear"]["test_samples"] == 30
    evaluate_run(latest(coloured), tasks=["class/knn"])
    assert own.read_text() == "mine"


def test_evaluation_is_repeatable(coloured: Path) -> None:
    first, second = (evaluate_run(run, tasks=["class/low_shot_12"]) for run in (coloured, latest(coloured)))
    assert first["tasks"] == second["tasks"]
    assert first["collapse"] == second["collapse"]


def test_numbers_that_cannot_be_written_are_printed(
    coloured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = jepa.evaluate.run.evaluation_splits

    def then_blocked(*arguments: Any) -> Any:
        (tmp_path / "out" / "results.partial").mkdir()  # from now on, the results cannot be written
        return read(*arguments)

    monkeypatch.setattr("jepa.evaluate.run.evaluation_splits", then_blocked)
    assert main([str(coloured), "--task", "class/knn", "-o", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "class/knn" in printed.out
    assert f"{tmp_path}/out/results.json cannot be written: " in printed.err


def test_unreadable_images_are_skipped_and_listed(tmp_path: Path) -> None:
    write_class_images(tmp_path / "data", COUNTS)
    broken = tmp_path / "data" / "test" / "red" / "0.png"
    broken.write_bytes(b"no image")
    results = evaluate_run(save_untrained(tmp_path / "run", tmp_path / "data"), tasks=["class/knn"])
    assert results["tasks"]["class/knn"]["test_samples"] == 89
    assert str(broken) in (tmp_path / "run" / "evaluations" / "bad_files.txt").read_text()


def test_images_without_labels_give_signs_of_collapse_and_no_tasks(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = evaluate_run(save_untrained(tmp_path, photos))
    assert results["tasks"] == {}
    assert results["collapse"]["rankme"] > 0
    assert "no labels" in capsys.readouterr().out


def test_overrides_and_tasks_that_do_not_fit_are_refused(coloured: Path, tmp_path: Path) -> None:
    for tasks, override, offender in (
        ([], "model.size=vit_tiny", "model.size"),
        ([], "data.patch_size=8", "does not fit"),
        ([], "data.flip=true", "data.flip: has no effect: only training uses it"),
        ([], "compute.cache_mb=1", "compute.cache_mb: has no effect"),
        ([], "evaluate.gallery=5", "evaluate.gallery: has no effect: image data lacks two matching streams"),
        (["count"], "evaluate.batch_size=7", "class/knn"),
    ):
        with pytest.raises(ConfigError, match=offender):
            evaluate_run(coloured, tasks=tasks, layers=[override])
    with pytest.raises(DataError, match="CIFAR10 is not below"):
        evaluate_run(coloured, layers=["data.source=CIFAR10"])
    assert main([str(tmp_path / "nowhere")]) == 1


@pytest.mark.slow
def test_the_embedded_world_is_evaluated_on_numbers_and_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scenes = "data.scenes={train: 60, validation: 30, test: 30}"
    size = "model.size={width: 24, depth: 2, heads: 2}"
    settings = (
        "data.image_size=32",
        "data.patch_size=8",
        size,
        f"run_dir={tmp_path / 'run'}",
        "compute.workers=0",
        scenes,
    )
    config, modality = resolve("image", {}, settings)
    torch.manual_seed(config.seed)
    model = JEPA(config.model, modality, config.target_kinds)
    Checkpoint(1, 1.0, plain(config), model.state_dict(), {}).save(latest(config.run_dir))
    rows = evaluate_run(config.run_dir)["tasks"]
    for name, train_samples in (("count/ridge", 60), ("depth/ridge", 60), ("depth_map/ridge", 60)):
        row = rows[name]
        assert (row["metric"], row["higher_is_better"]) == ("rmse", False)
        assert row["jepa"] == row["random_init"] > 0
        assert row["raw_input"] > 0
        assert row["train_samples"] == train_samples


def test_scoring_on_the_validation_split_leaves_the_test_split_unread(tmp_path: Path) -> None:
    write_class_images(tmp_path / "data", COUNTS)
    run_dir = save_untrained(tmp_path / "run", tmp_path / "data")
    modality = load_modality(run_dir)
    splits = evaluation_splits(modality, EvaluateConfig(scored_split="validation", validation_samples=15))
    fitting, choosing, training = (
        {samples[index].inputs.numpy().tobytes() for index in range(len(samples))}
        for samples in (splits["train"], splits["validation"], modality.dataset("train"))
    )
    assert len(choosing) == 15
    assert not fitting & choosing
    assert fitting | choosing == training
    for path in (tmp_path / "data" / "test").rglob("*.png"):
        path.write_bytes(b"")
    layers = ["evaluate.scored_split=validation", "evaluate.validation_samples=15"]
    row = evaluate_run(run_dir, tasks=["class/linear"], layers=layers)["tasks"]["class/linear"]
    assert row["jepa"] > 0.9
    assert (row["train_samples"], row["test_samples"]) == (75, 30)


# Several views, named baselines, attentive probes -------------------------------------------------------------------


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained run on moving dots; one test sample cannot be decoded."""
    settings = (
        f"run_dir={tmp_path_factory.mktemp('runs') / 'moving'}", "compute.workers=0", "compute.precision=fp32",
        "model.size={width: 32, depth: 2, heads: 2}", "model.predictor={width: 16, depth: 1, heads: 2}",
        "evaluate.attentive_steps=15", "evaluate.low_shot_draws=1", "evaluate.forecast_samples=0", "data.bad=[3]",
    )  # fmt: skip
    config, modality = resolve("moving:Moving", {}, settings)
    torch.manual_seed(config.seed)
    model = JEPA(config.model, modality, config.target_kinds)
    Checkpoint(1, 1.0, plain(config), model.state_dict(), {}).save(latest(config.run_dir))
    return config.run_dir


def test_a_modality_chooses_its_baselines_and_attentive_probes(
    moving: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = evaluate_run(moving)["tasks"]
    probes = ["linear", "linear_last4", "knn", "low_shot_12", "low_shot_1pct", "attentive"]
    assert list(rows) == [*(f"way/{probe}" for probe in probes), "row/ridge", "row/attentive"]
    baselines = ["raw_input", "middle_moment", "motion_energy"]
    for name, row in rows.items():
        assert list(row)[:8] == ["metric", "higher_is_better", "jepa", "random_init", *baselines, "chance"]
        assert row["jepa"] == row["random_init"]
        assert (row["test_samples"], row["raw_input"] is None) == (59, name.endswith("attentive"))
    assert rows["way/attentive"]["chosen"]["jepa"].keys() == {"learning_rate", "weight_decay"}
    shown = capsys.readouterr().out
    assert "moment" in shown
    assert "energy" in shown
    deep = evaluate_run(moving, tasks=["row/attentive2"], layers=["evaluate.attentive=[2]"])
    assert list(deep["tasks"]) == ["row/attentive2"]
    assert list(evaluate_run(moving, tasks=["row"], layers=["evaluate.attentive=[]"])["tasks"]) == ["row/ridge"]


def test_features_are_means_over_views_and_each_sample_is_read_once() -> None:
    modality = Moving(MovingConfig(samples=10))
    encoder = modality.encoder(MOVING_MODEL).eval()
    encoders = {"jepa": encoder, "random_init": encoder}
    compute = ComputeConfig(workers=0, precision="fp32")
    extractor = Extractor(modality, encoders, modality.tasks, 4, compute, lambda _: None)
    samples = Dots(modality.config, "test")
    features = extractor.extract(samples, range(10), TokenBudget(tokens=3, sequences=5, every_view=True))
    assert samples.read == 10
    assert features.columns == ("jepa", "random_init", "raw_input", "middle_moment", "motion_energy")
    with torch.no_grad():
        for index in range(10):
            views = modality.evaluation_views(samples[index].inputs)
            tokens = torch.stack([encoder(view[None])[0] for view in views])  # [V, N, D]
            torch.testing.assert_close(features.last["jepa"][index], tokens.mean(dim=(0, 1)), rtol=1e-4, atol=1e-5)
            energy = torch.stack([modality.baselines(view)["motion_energy"] for view in views]).mean(dim=0)
            torch.testing.assert_close(features.last["motion_energy"][index], energy)
            if index < 5:
                kept = features.sequences["jepa"][index]
                normed = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:])
                torch.testing.assert_close(kept, normed.bfloat16(), rtol=1e-2, atol=1e-2)
            if index < 3:
                torch.testing.assert_close(features.tokens["jepa"][index], tokens[0], rtol=1e-4, atol=1e-4)
    assert len(features.sequences["jepa"]) == 5
    assert len(features.tokens["jepa"]) == 3
