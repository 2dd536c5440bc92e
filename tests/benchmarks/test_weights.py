"""`make weights` skips what is done, continues an interrupted run, and its results load by name."""

import sys
from pathlib import Path
from typing import Any

import pytest
from small_runs import save_untrained

import jepa
from benchmarks import weights
from jepa.__main__ import main as command
from jepa.checkpoint import CheckpointError
from jepa.config import read_yaml
from jepa.weights.demos import DEMOS

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def calls(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that were called. The training is one of three steps on photos; all other commands are real."""
    found: list[list[str]] = []

    def call(words: list[str], env: dict[str, str], check: bool) -> Any:
        found.append(words[3:])
        if words[3] == "launch":
            run_dir = Path(words[words.index("--run-dir") + 1])
            save_untrained(run_dir, photos, "steps=3", "model.predictor={width: 24, depth: 1, heads: 2}")
            (run_dir / "config.yaml").write_text("modality: image\n")
            return type("Done", (), {"returncode": 0})
        monkeypatch.setattr("sys.argv", ["jepa", *words[3:]])
        return type("Done", (), {"returncode": command()})

    monkeypatch.setattr(weights.subprocess, "run", call)
    monkeypatch.chdir(tmp_path)
    return found


def test_weights_are_made_once_and_load_by_name(calls: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="`make weights WEIGHTS=demo-image` trains it in minutes"):
        jepa.load("demo-image")
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["weights", "demo-image", "--steps", "3"])
        assert weights.main() == 0
    assert [words[0] for words in calls] == ["launch", "push"]
    assert sum(one.numel() for one in jepa.load("demo-image").parameters()) > 0
    card = Path("weights/demo-image/README.md").read_text()
    assert 'jepa.load("demo-image")' in card
    assert "license: apache-2.0" in card

    Path("weights/demo-image/README.md").rename("elsewhere")  # a folder is whole or absent, so only steps count
    monkeypatch.setattr(sys, "argv", ["weights", "demo-image", "--steps", "4"])
    weights.main()
    assert [words[0] for words in calls] == ["launch", "push"] * 2


def test_a_name_yields_to_a_path_and_needs_its_package(calls: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls == []
    monkeypatch.setattr("jepa.weights.demos.find_spec", lambda name: None)
    Path("weights/demo-audio").mkdir(parents=True)
    Path("weights/demo-audio/config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="demo-audio needs its modality: pip install examples/audio"):
        jepa.load("demo-audio")
    Path("demo-image").mkdir()
    with pytest.raises(CheckpointError, match="demo-image holds no checkpoint"):
        jepa.load("demo-image")


@pytest.mark.parametrize("name", DEMOS)
def test_recipes_and_packages_of_all_names_exist(name: str) -> None:
    demo = DEMOS[name]
    assert read_yaml(ROOT / demo.recipe)["steps"] > 100
    assert (ROOT / demo.package / demo.modality.partition(".")[0]).is_dir() or not demo.package
