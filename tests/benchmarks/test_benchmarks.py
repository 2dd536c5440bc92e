"""Methods are compared by real runs, made once, with equal budgets and with the labels of the probes."""

import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import fork_server
import pytest
import torch
from pictures import write_class_images

from benchmarks import learning
from benchmarks.learning_runs import FOLDER, Budget, read_method
from benchmarks.supervised import Classifier, probe_training_samples, scored_samples
from jepa.evaluate.reading import evaluated_indices, evaluation_splits
from jepa.launch import resolve
from jepa.modality import Modality, Samples
from jepa.model import JEPA
from jepa.probe.protocol import EvaluateConfig

SETTINGS = [
    *("data.image_size=16", "data.patch_size=2", "model.size={width: 24, depth: 2, heads: 2}"),
    *("model.predictor={width: 16, depth: 1, heads: 2}", "optim.batch_size=8", "compute.workers=0"),
    "evaluate.report=false",
]
COUNTS = {"train": 10, "val": 5, "test": 4}  # images a class


def _fork(command: list[str], *, stdout: Any, env: dict[str, str], **_: Any) -> fork_server.Process:
    log = Path(stdout.name)
    return fork_server.start(*command[2:], stdout=log, stderr=log, OMP_NUM_THREADS=env["OMP_NUM_THREADS"])


@pytest.fixture(scope="module", autouse=True)
def _quick_runs() -> Iterator[None]:
    """Runs start in the fork server, and a cost is that of the first masks alone."""
    forking = SimpleNamespace(Popen=_fork, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.learning_runs.subprocess", forking)
        patch.setattr("jepa.cost.flops.DRAWS", 1)
        yield


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of which one channel is brighter, by class."""
    return write_class_images(tmp_path_factory.mktemp("colours"), {split: 3 * count for split, count in COUNTS.items()})


def image_modality(root: Path) -> Modality[Any]:
    return resolve("image", {}, [*SETTINGS, "data.source=folder", f"data.root={root}"])[1]


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


@pytest.fixture(scope="module")
def command(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three steps of two methods, at --work and --json, the last two options; made."""
    folder = tmp_path_factory.mktemp("comparison")
    budget = ["--steps", "3", "--seeds", "1", "--jobs", "2"]
    words = ["--methods", "jepa,supervised", "--data", str(colours), *budget, *SETTINGS]
    words += ["--work", str(folder / "work"), "--json", str(folder / "table.json")]
    assert learning.main(words) == 0
    return words


@pytest.mark.slow
def test_a_comparison_has_a_row_for_every_method_and_baseline_and_is_made_once(command: list[str]) -> None:
    work, path = Path(command[-3]), Path(command[-1])
    made, text = stamps(work), path.read_text()
    report = json.loads(text)
    rows = {row["method"]: row for row in report["rows"]}
    assert list(rows) == ["jepa", "supervised", "untrained", "raw_input"]
    for row in rows.values():
        for task in ("linear", "linear_last4", "knn", "low_shot"):
            assert row[task]["spread"] == 0.0
            assert row[task]["values"] == [row[task]["mean"]]
            assert report["chance"][task] == pytest.approx(1 / 3)
    assert rows["raw_input"]["linear"]["mean"] == 1.0  # colours are easy to distinguish
    assert 0 <= rows["supervised"]["head"]["mean"] <= 1
    assert rows["jepa"]["samples"] == rows["supervised"]["samples"] == 24
    assert 0.5 < rows["jepa"]["flops"] / rows["supervised"]["flops"] < 2  # a target pass, but fewer tokens
    for name in ("jepa", "supervised"):
        results = json.loads(next(work.glob(f"{name}-0-*/results.json")).read_text())
        assert rows[name]["knn"]["mean"] == results["tasks"]["class/knn"]["jepa"]
        assert results["tasks"]["class/knn"]["test_samples"] == 3 * COUNTS["test"]
    table = path.with_suffix(".md").read_text()
    assert table.startswith(f"`{report['command']}`")
    assert table.count("\n| ") == 1 + len(rows)

    assert learning.main(command) == 0
    assert stamps(work) == made
    assert path.read_text() == text


@pytest.mark.slow
def test_a_failed_run_ends_the_comparison_with_its_last_output_and_loses_nothing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.yaml").write_text("optim: {peak_lr: 1.0e+30, warmup: 0}\n")
    made = stamps(Path(command[-3]))
    assert learning.main(["--methods", f"jepa,{tmp_path / 'broken.yaml'}", *command[2:]]) == 1
    said = capsys.readouterr().err
    assert "error: broken with seed 0 ended with status 1; " in said
    assert re.search(r"error: the [a-z ]+ is not finite at step ", said)
    assert made.items() <= stamps(Path(command[-3])).items()


def test_equal_flops_give_steps_inversely_to_the_flops_of_a_step(colours: Path) -> None:
    common = [*SETTINGS, *learning._data(str(colours))]
    flops = {path.stem: learning._plan(read_method(path.stem), common).flops for path in sorted(FOLDER.glob("*.yaml"))}
    steps = Budget("flops", 1e13).steps(flops)
    assert set(steps) == {"jepa", "ijepa", "latent", "pixels", "lejepa", "supervised"}
    for name, count in steps.items():
        assert math.isclose(count * flops[name], 1e13, rel_tol=1e-4)
    assert steps["pixels"] > steps["jepa"] > steps["latent"]  # no target pass; in a part of the steps; in all


@pytest.mark.parametrize("path", sorted((FOLDER.parent / "ablations").glob("*.yaml")), ids=lambda path: path.stem)
def test_ablations_are_valid_on_the_grid_that_they_are_meant_for(path: Path, colours: Path) -> None:
    on_grid = ["data.image_size=32", "data.patch_size=4", *learning._data(str(colours))]
    config = learning._plan(read_method(str(path)), on_grid).config
    assert "pixels" not in config.target_kinds or config.target == "pixels"


@pytest.mark.parametrize("split", ["test", "validation"])
def test_supervised_training_uses_the_labels_that_train_the_probes(
    split: Literal["test", "validation"], colours: Path
) -> None:
    modality = image_modality(colours)
    config = EvaluateConfig(scored_split=split, train_samples=20, validation_samples=4, test_samples=9)
    samples = evaluation_splits(modality, config)

    def seen(samples: Samples, indices: Any) -> list[bytes]:
        return [samples[index].inputs.numpy().tobytes() for index in indices]

    for own, role, limit in (
        (probe_training_samples(modality, config), "train", 20),
        (scored_samples(modality, config), "test", 9),
    ):
        expected = seen(samples[role], evaluated_indices(len(samples[role]), limit, role))
        assert seen(own, range(len(own))) == expected
        assert len(expected) == limit


def test_supervised_training_starts_from_the_encoder_that_pretraining_starts_from(colours: Path) -> None:
    config, modality = resolve("image", {}, [*SETTINGS, "data.source=folder", f"data.root={colours}"])
    torch.manual_seed(3)
    pretrained = JEPA(config.model, modality).context_encoder
    torch.manual_seed(3)
    supervised = Classifier(config.model, modality).context_encoder
    for ours, theirs in zip(supervised.parameters(), pretrained.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--data {colours}", "one of the arguments --seconds --steps --flops is required"),
        ("--data {colours} --steps 3 --seconds 3", "argument --seconds: not allowed with argument --steps"),
        ("--data {colours} --steps 0", "argument --steps: a positive number is needed, not '0'"),
        ("--data {colours}/none --steps 3", "argument --data: there is no folder '{colours}/none'; a folder of images"),
        (
            "--data {colours} --steps 3 --methods jepa,jepo",
            "argument --methods: no method 'jepo'; methods: ijepa, jepa,",
        ),
        ("--data {colours} --steps 3 seed=4", "seed is not a setting of a comparison: it is set by --seeds"),
    ],
)
def test_invalid_comparisons_are_refused_in_one_sentence(
    options: str, sentence: str, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options.format(colours=colours).split()
    with pytest.raises(SystemExit) as stopped:
        learning.main([*words, "--json", str(tmp_path / "table.json"), "--work", str(tmp_path / "work")])
    assert stopped.value.code == 2
    assert f"error: {sentence.format(colours=colours)}" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_data_without_classes_is_refused(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--data", str(photos), "--steps", "3", "--json", str(tmp_path / "table.json"), "--methods", "jepa"]
    assert learning.main([*command, "--work", str(tmp_path / "work")]) == 1
    assert capsys.readouterr().err.startswith("error: data: there are no classes to learn; ")
    assert not list(tmp_path.iterdir())
