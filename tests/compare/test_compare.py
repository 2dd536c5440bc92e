"""Encoders of any source are evaluated on a user's images, alone and side by side."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import write_class_images
from small_runs import save_untrained
from tiny import randomise
from torch import Tensor, nn
from toy_families import random_network

from jepa.checkpoint import Checkpoint, latest
from jepa.compare import run as compare_run
from jepa.compare.command import main as compare
from jepa.config import ConfigError
from jepa.evaluate.__main__ import main as evaluate
from jepa.evaluate.run import evaluate_run
from jepa.ops.published_positions import published_sincos
from jepa.positions import grid_positions
from jepa.report.page import write_report
from jepa.weights.families.module import ModuleFamily
from jepa.weights.families.names import FamilyName
from jepa.weights.formats.folder import write_folder

COUNTS = {"train": 72, "validation": 24, "test": 30}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a run, weights of a MAE and of transformers' I-JEPA, and images of three colours."""
    monkeypatch.chdir(tmp_path)
    write_class_images(tmp_path / "photos", COUNTS)
    save_untrained(tmp_path / "run", tmp_path / "elsewhere")
    Path("given").mkdir()
    torch.save({"model": random_network("toy_mae", 32).state_dict()}, "given/mae.pth")
    return tmp_path


class Transposed(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.transpose(1, 2)


def ijepa(folder: str) -> None:
    """A small I-JEPA in transformers' layout."""
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = {"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 3}
    config = transformers.IJepaConfig(**sizes, intermediate_size=768, image_size=32, patch_size=8, layer_norm_eps=1e-6)
    model = transformers.IJepaModel(config)
    randomise(model)
    table = published_sincos(grid_positions((4, 4)), 192)
    model.embeddings.position_embeddings.data.copy_(table.unsqueeze(0))
    model.save_pretrained(folder)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_any_encoder_has_the_table_and_the_report_of_a_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(["timm:toy_mae.mae@given/mae.pth"]) == 1
    assert "names no data to evaluate on; add data.root=PATH" in capsys.readouterr().err
    probes = ["knn", "linear_pooled", "knn_pooled", "attentive"]
    tasks = [word for probe in probes for word in ("--task", f"class/{probe}")]
    settings = ["--modality", "image", "data.root=photos", "evaluate.attentive=[1]", "evaluate.attentive_steps=5"]
    assert evaluate(["timm:toy_mae.mae@given/mae.pth", *tasks, *settings]) == 0
    (folder,) = Path("evaluations").iterdir()
    assert folder.name.startswith("timm-toy_mae.mae-mae-")
    assert [path.name for path in Path("given").iterdir()] == ["mae.pth"]  # nothing is written beside weights
    found = read(folder / "results.json")
    assert list(found["tasks"]) == [f"class/{probe}" for probe in probes]
    for row in found["tasks"].values():
        assert row["chance"] == pytest.approx(1 / 3)
        assert row["test_samples"] == 30
        assert row["jepa"] > 0.5
    assert found["tasks"]["class/knn_pooled"]["random_init"] is not None
    assert found["collapse"]["rankme"] != found["collapse"]["rankme_random_init"]  # not the same weights
    assert found["network"]["own_pooling"] == "class token"
    page = write_report(folder).read_text()
    assert "The encoder of timm:toy_mae.mae@given/mae.pth" in page
    assert "jepa evaluate timm:toy_mae.mae@given/mae.pth --modality image --task class/knn" in page
    assert "Nearest neighbours" in page
    assert "How training went" not in page


def test_a_custom_module_is_evaluated_from_python(here: Path) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 16, 4, stride=4), nn.Flatten(2), Transposed())

    source = ModuleFamily(make(), make, image_size=(16, 16), name=FamilyName("module", "mine", ""))
    found = evaluate_run(source, tasks=["class/knn"], layers=["data.root=photos"])
    assert found["tasks"]["class/knn"]["jepa"] > 0.9
    assert found["collapse"]["rankme"] != found["collapse"]["rankme_random_init"]
    assert found["network"]["grid"] == [4, 4]
    assert next(Path("evaluations").iterdir()).name.startswith("module-mine")
    with pytest.raises(ConfigError, match=r"the module returns \[1, 256\]; expected tokens"):
        evaluate_run(ModuleFamily(nn.Sequential(make(), nn.Flatten()), make, (16, 16)), layers=["data.root=photos"])


def test_sources_of_every_kind_are_compared_in_one_table_and_page(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ijepa("given/ijepa")
    sources = ["run", "given/ijepa", "timm:toy_mae.mae@given/mae.pth"]
    rows = ["--task", "class/knn", "data.root=photos"]
    draws = ["--task", "class/low_shot_12", "evaluate.low_shot_draws=2"]
    assert evaluate(["timm:toy_siglip@random", *rows, *draws, "-o", "before"]) == 0
    assert compare([*sources, "before/results.json", "timm:toy_nothing", *rows, "--html", "-o", "out"]) == 1
    names = ["run", "ijepa", "timm-toy_mae.mae-mae", "before"]
    found = read(Path("out/results.json"))
    assert list(found["sources"]) == names
    assert all(0 <= found["tasks"]["class/knn"][name] <= 1 for name in names)
    assert set(found["tasks"]["class/knn"]["baselines"]) == set(names)
    assert set(found["tasks"]["class/low_shot_12"]["spread"]) == {"before"}
    assert found["sources"]["run"]["network"]["image_size"] == 16  # each has its own resolution
    assert found["sources"]["ijepa"]["network"]["image_size"] == 32
    assert found["tasks"]["class/knn"]["before"] == read(Path("before/results.json"))["tasks"]["class/knn"]["jepa"]
    assert list(found["failed"]) == ["timm-toy_nothing"]
    printed = capsys.readouterr()
    assert "timm has no model 'toy_nothing'" in printed.err
    assert "protocol.low_shot_draws differs" in " ".join(printed.out.split())
    assert "not comparable" not in printed.out
    assert all(name in printed.out for name in names)
    page = Path("out/compare.html").read_text()
    assert all(f"<th>{name}</th>" in page for name in names)
    assert not Path("run/results.json").exists()  # results of the run itself stay as they are


def test_a_comparison_that_was_cut_off_evaluates_only_what_is_missing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated: list[str] = []
    whole = compare_run.evaluate

    def counted(request: Any, **options: Any) -> Any:
        evaluated.append(str(request.source))
        if len(evaluated) == 2:
            raise KeyboardInterrupt
        return whole(request, **options)

    monkeypatch.setattr(compare_run, "evaluate", counted)
    words = ["timm:toy_mae.mae@given/mae.pth", "run", "--task", "class/knn", "data.root=photos"]
    assert compare(words) == 130
    assert compare(words) == 0
    assert evaluated == [words[0], "run", "run"]
    said = capsys.readouterr().err
    assert "results exist, written 2" in said
    assert "--again computes them anew" in said
    torch.save({"model": random_network("toy_mae", 32).double().float().state_dict()}, "given/mae.pth")
    assert compare(words) == 0  # the file is another one
    assert compare([*words, "evaluate.test_samples=20"]) == 0
    assert evaluated[3:] == [words[0], words[0], "run"]


def test_scores_on_other_data_are_not_comparable(tmp_path: Path) -> None:
    row = {"metric": "accuracy", "higher_is_better": True, "jepa": 0.5, "chance": 0.1, "test_samples": 60}
    old = {"tasks": {"class/knn": row}, "notes": []}
    one, other = ({"tasks": {"class/knn": row | {"test_labels": labels}}, "notes": []} for labels in ("3f", "9a"))
    sentence = "class/knn is not comparable: the labels of the test samples differ, so the data does"
    (note,) = compare_run.Comparison(tmp_path, {"one": one, "other": other, "old": old}, {}).notes()
    assert note.startswith(sentence)
    assert compare_run.Comparison(tmp_path, {"one": one, "old": old}, {}).notes() == []


def test_every_source_has_a_name_of_its_own() -> None:
    assert compare_run.names_of(["x/b", "c/b", "x-b"]) == ["x-b", "c-b", "x-b-2"]
    assert compare_run.names_of(["x/b", "c/b", "x-b-2", "x-b"]) == ["x-b", "c-b", "x-b-2", "x-b-3"]
    assert compare_run.names_of(["runs/demo", "timm:vit"]) == ["demo", "timm-vit"]


def test_a_metric_that_a_shared_folder_names_is_called_only_if_it_is_trusted(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Checkpoint.load(latest(here / "run"))
    metric = {"function": "strange_metric:score", "label": "class"}
    evil = found.config | {"evaluate": found.config["evaluate"] | {"functions": [metric]}}
    Path("evil").mkdir()
    write_folder(replace(found, config=evil), Path("evil"))
    Path("strange_metric.py").write_text("open('imported', 'w')\ndef score(samples):\n    return 0.5\n")
    words = ["evil", "data.root=photos", "--task", "class/knn"]
    assert evaluate(words) == 1
    assert "would import and call strange_metric:score" in " ".join(capsys.readouterr().err.split())
    assert not Path("imported").exists()
    assert evaluate([*words, "evaluate.functions=[]"]) == 0
    assert not Path("imported").exists()


def test_results_under_different_protocols_are_said_to_be_incomparable(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ["--task", "class/knn", "data.root=photos"]
    changed = ("evaluate.test_samples=12", "evaluate.validation_samples=20", "evaluate.batch_size=8")
    assert evaluate(["run", *row, *changed, "-o", "few"]) == 0
    assert compare(["few", "timm:toy_mae@random", *row]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "protocol.test_samples differs: 12 (few), 2000 (timm-toy_mae-random)" in printed
    assert "class/knn is not comparable: chance" in printed or "test samples 12 (few), 30 (" in printed
    assert "protocol.validation_samples differs: 20 (few)" in printed
    assert "batch_size" not in printed
    assert "run holds the networks of step 3 of 10,000." in printed
    assert compare(["run", "timm:toy_mae@random", "--modality", "video", *row]) == 1
    assert "run is an encoder of modality 'image', not 'video'" in capsys.readouterr().err
