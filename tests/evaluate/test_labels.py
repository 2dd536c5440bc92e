"""Scores say what they are of: few labels, ids as classes, small or one-sided splits."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from own_functions import Catalogued
from pictures import write_class_images, write_images
from small_runs import save_untrained
from tiny import MODEL, NoiseConfig

from jepa.evaluate.feature_table import FeatureTable
from jepa.evaluate.features import Extractor, Features, TokenBudget
from jepa.evaluate.labels import caveats_of, size_notes
from jepa.evaluate.probes.attentive import ProbeTraining
from jepa.evaluate.reading import raised_limit_note, sample_limits
from jepa.evaluate.run import evaluate_run
from jepa.evaluate.splits import Splits
from jepa.evaluate.table import error_line, is_close
from jepa.evaluate.tasks import measure
from jepa.launch import resolve
from jepa.modality import Task
from jepa.probe.protocol import EvaluateConfig
from jepa.report.charts import task_title
from jepa.training.config import ComputeConfig


def test_ids_are_classes_like_numbers_in_the_same_order() -> None:
    modality = Catalogued(NoiseConfig(samples=40))
    encoder = modality.encoder(MODEL).eval()
    compute = ComputeConfig(workers=0, precision="fp32")
    extractor = Extractor(
        modality, {"jepa": encoder, "random_init": encoder}, modality.tasks, 8, compute, lambda _: None
    )

    def extract(indices: range) -> Features:
        return extractor.extract(modality.dataset("train"), indices, TokenBudget(sequences=20))

    splits = Splits(extract(range(20)), extract(range(20, 30)), extract(range(30, 40)))
    table = FeatureTable(splits, 2, ProbeTraining(3, torch.device("cpu"), bf16=False))
    ids, numbers = modality.tasks
    for probe in ("linear", "knn", "low_shot_12", "attentive"):
        assert measure(ids, probe, table, lambda: None) == measure(numbers, probe, table, lambda: None)


def test_numbers_that_some_samples_lack_are_predicted_from_those_that_have_them() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, mixed = torch.randn(8, generator=generator), torch.randn(8, 8, generator=generator)

    def split(count: int) -> Features:
        features = torch.randn(count, 8, generator=generator) @ mixed
        labels = features @ weights + 0.01 * torch.randn(count, generator=generator)
        labels[torch.rand(count, generator=generator) < 0.7] = float("nan")
        return Features({"jepa": features, "random_init": features}, {}, {}, {}, {}, {"number": labels})

    splits = Splits(split(200), split(100), split(100))
    table = FeatureTable(splits, 2, ProbeTraining(3, torch.device("cpu"), bf16=False))
    row = measure(Task(label="number", kind="regression"), "ridge", table, lambda: None)
    known = [one.labels["number"].isfinite() for one in (splits.train, splits.test)]
    solved = torch.linalg.lstsq(splits.train.last["jepa"][known[0]], splits.train.labels["number"][known[0], None])
    errors = splits.test.last["jepa"][known[1]] @ solved.solution[:, 0] - splits.test.labels["number"][known[1]]
    assert row["jepa"] == pytest.approx(float(errors.square().mean().sqrt()), rel=0.1)


def test_rows_of_few_labels_say_how_many_there_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_class_images(tmp_path / "data", {"train": 31, "validation": 6, "test": 6})
    results = evaluate_run(save_untrained(tmp_path / "run", tmp_path / "data"), tasks=["class"])
    few, share = (results["tasks"][f"class/{probe}"] for probe in ("low_shot_12", "low_shot_1pct"))
    assert (few["labels_per_class"], few["train_samples"], few["draws"]) == ([10, 11], 31, 1)
    assert "spread" not in few
    assert task_title("class/low_shot_12", few) == "class, 10 to 11 labels per class"
    assert (share["label_share"], share["draws"]) == (3 / 31, 5)
    assert task_title("class/low_shot_1pct", share) == "class, 9.7 % of the labels"
    assert "caveats" not in results["tasks"]["class/linear"]
    shown = " ".join(capsys.readouterr().out.split())
    assert "class/low_shot_12 *" in shown
    assert "* class/low_shot_1pct: trained on 9.7 % of the 31 labels" in shown
    assert (
        "Scores are from only 6 test samples: the standard error of an accuracy is up to 20 percentage points." in shown
    )


def test_many_classes_raise_the_number_of_training_samples(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{number}/0.png" for number in range(400)])
    settings = ["data.source=folder", f"data.root={tmp_path}"]
    _, modality = resolve("image", {}, settings)
    assert sample_limits(modality, EvaluateConfig())["train"] == 24 * 400
    assert sample_limits(modality, EvaluateConfig(train_samples=70))["train"] == 70
    note = "Probes are trained on up to 9,600 samples, 24 for each of 400 classes"
    assert raised_limit_note(modality, EvaluateConfig(), range(9_600)).startswith(note)  # type: ignore[arg-type]
    assert raised_limit_note(modality, EvaluateConfig(), range(5_000)) == ""  # type: ignore[arg-type]


def test_one_sided_labels_are_caveats() -> None:
    def found(train: list[float], test: list[float], probe: str = "linear", choosing: Sequence[float] = ()) -> str:
        labels = Splits(torch.tensor(train), torch.tensor(choosing or train), torch.tensor(test))
        return "; ".join(caveats_of(Task(label="class", kind="class", classes=("a", "b", "c")), probe, labels))

    assert found([0, 1, 2, torch.nan], [2, 1, 0]) == ""
    assert found([0, 1, 2], [2, 1, 0], "attentive") == "trained on 3 samples of 3 classes, 1 for each"
    assert (
        found([0, 1, 2], [2, 1, 0], choosing=[1, 1]) == "its setting is chosen on validation samples of a single class"
    )
    assert found([1, 1], [1, 1]) == "all training labels are of one class, 'b'; the test samples are of 1 of 3 classes"
    assert "2 of 3 test samples are of classes without a training label" in found([0, 0, 1], [0, 2, 2])
    assert "chance is 0: no test sample is of the most frequent training class, 'a'" in found([0, 0, 1, 2], [1, 2])
    assert size_notes({"train": 20, "validation": 20, "test": 100}) == []
    assert len(size_notes({"train": 19, "validation": 19, "test": 1})) == 3


def test_a_lead_is_close_if_it_is_within_two_standard_errors() -> None:
    def row(jepa: float, untrained: float, samples: int, metric: str = "accuracy") -> dict[str, object]:
        scores = {"metric": metric, "higher_is_better": True, "jepa": jepa, "random_init": untrained, "chance": 0.1}
        return scores | {"test_samples": samples}

    assert is_close(row(0.52, 0.50, 2_000))  # the standard error of the difference is .016
    assert not is_close(row(0.52, 0.50, 20_000))
    assert not is_close(row(0.50, 0.52, 2_000))
    assert not is_close(row(0.52, 0.50, 10, "score"))
    assert (
        error_line({"a": row(0.5, 0.4, 2_500)}) == "standard error of an accuracy on 2,500 test samples: at most 0.010"
    )
    assert error_line({"a": row(0.5, 0.4, 2_500, "score")}) == ""
