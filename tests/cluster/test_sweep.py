"""Sweeps: runs are the cross product, and start once; the report shows mean, spread and missing runs."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from runs import FORKING

from jepa.cluster.sweep import Variant, read_sweep, run_here, variants, write_sweep
from jepa.cluster.sweep_report import main
from jepa.config import ConfigError
from jepa.launch import main as launch

TINY = [
    *("data.source=folder", "data.image_size=32", "data.patch_size=4", "optim.batch_size=8", "steps=3"),
    *("model.size={width: 48, depth: 1, heads: 2}", "model.predictor={width: 32, depth: 1, heads: 2}"),
    *("compute.workers=0", "evaluate.enabled=false", "evaluate.report=false"),
]


def test_a_sweep_is_the_cross_product_and_names_runs_after_their_settings() -> None:
    found = variants(["optim.peak_lr=1e-4,3e-4", "data.crop_scale=[0.2,1],[0.5,1]"], seeds=2)
    assert len(found) == len({variant.name for variant in found}) == 8
    assert found[0].values == {"optim.peak_lr": 1e-4, "data.crop_scale": [0.2, 1], "seed": 0}
    assert found[0].name == "peak_lr=0.0001,crop_scale=0.2_1,seed=0"
    assert "data.crop_scale=[0.2, 1]" in found[0].overrides
    same_end = variants(["model.size.width=24,48", "model.predictor.width=24"], seeds=0)
    assert same_end[0].name == "model.size.width=24,model.predictor.width=24"


@pytest.mark.parametrize(
    ("sweep", "seeds", "sentence"),
    [
        (["steps"], 0, "'steps' is not of the form"),
        (["steps=1", "steps=2"], 0, "a key is given twice"),
        (["seed=1,2"], 3, "--seeds: .* 'seed'"),
        (["steps=1,1"], 0, "is a value given twice"),
        (["data.crop_scale=[1"], 0, "is not valid YAML"),
    ],
)
def test_an_invalid_sweep_is_refused(sweep: list[str], seeds: int, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        variants(sweep, seeds)


def test_a_failed_run_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = ["--modality", "image", "--run-dir", str(tmp_path / "wrong"), "optim.peek_lr=1"]
    monkeypatch.setattr("jepa.cluster.sweep.subprocess", FORKING)
    assert run_here({"first": wrong, "second": wrong}) == 1
    assert "2 of 2 runs failed: first; second" in capsys.readouterr().err


def test_the_report_shows_mean_and_spread_over_seeds_and_missing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = [Variant(f"lr={lr},seed={seed}", {"optim.lr": lr, "seed": seed}) for lr in (1, 2) for seed in (0, 1)]
    write_sweep(tmp_path, planned[:2])
    write_sweep(tmp_path, planned[2:])  # extended
    assert list(read_sweep(tmp_path)) == [variant.name for variant in planned]
    for variant, accuracy in zip(planned[:3], (0.5, 0.7, 0.9), strict=True):
        (tmp_path / variant.name).mkdir()
        task = {f"{label}/knn": {"metric": "accuracy", "jepa": accuracy} for label in ("class", "$\\no\n formula$")}
        (tmp_path / variant.name / "results.json").write_text(json.dumps({"tasks": task}))
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| optim.lr | runs | $\\no\\n formula$/knn (accuracy) | class/knn (accuracy) |" in said
    assert "| 1 | 2 | 0.6000 ± 0.1414 | 0.6000 ± 0.1414 |" in said
    assert "| 2 | 1 | 0.9000 | 0.9000 |" in said
    assert "- lr=2,seed=1: not started" in said
    assert len(list(csv.reader((tmp_path / "sweep.csv").read_text().splitlines()))) == 3
    assert (tmp_path / "sweep.png").stat().st_size > 1000
    write_sweep(tmp_path, [Variant("decay=1", {"optim.decay": 1})])  # another sweep into the same folder
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| optim.lr | optim.decay | runs |" in said
    assert "| 2 |  | 1 | 0.9000 |" in said


def test_a_sweep_that_is_launched_again_with_other_settings_is_refused_or_evaluated_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launched = list[str]()

    def run(*more: str) -> int:
        return launch(["--modality", "image", "--run-dir", str(tmp_path), *TINY, f"data.root={photos}", *more])

    def in_this_process(commands: dict[str, Sequence[str]]) -> int:
        launched.extend(commands)
        return max(launch(command) for command in commands.values())

    monkeypatch.setattr("jepa.cluster.submit.run_here", in_this_process)
    sweep = ("--sweep", "seed=1,2")
    assert run(*sweep) == 0
    assert launched == ["seed=1", "seed=2"]
    assert run(*sweep) == 0
    assert len(launched) == 2
    assert run(*sweep, "optim.weight_decay=0.3") == 1
    assert f"{tmp_path}/seed=1 holds a run with another config: optim.weight_decay" in capsys.readouterr().err
    assert run(*sweep, "evaluate.batch_size=7") == 0
    assert launched == 2 * ["seed=1", "seed=2"]
    assert run(*sweep, "evaluate.enabled=true", "--train-only") == 0
    assert len(launched) == 4
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| runs | loss |" in said
    assert "- seed=1: trained, not evaluated" in said
    assert run("--dry-run", "--sweep", "optim.peek_lr=1,2") == 1
    assert "unknown key 'optim.peek_lr'" in capsys.readouterr().err
    assert run("--dry-run", *sweep, "--seeds", "2") == 1
    assert run("--dry-run", *sweep) == 0
    assert "2 runs; config and cost are those of the first, seed=1" in " ".join(capsys.readouterr().err.split())
