"""The folder of safetensors and JSON: exact, without code, and a damaged one is refused in a sentence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa.checkpoint import Checkpoint, CheckpointError
from jepa.weights.formats.folder import CONFIG, WEIGHTS, is_folder, read_folder, write_folder

CONFIG_TREE: dict[str, Any] = {
    "modality": "image",
    "data": {"root": None, "rate": 0.1 + 0.2},
    "model": {"size": [1, 2]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = {
        "target_encoder.weight": torch.randn(5, 7).t(),  # not contiguous
        "context_encoder.half": torch.randn(3).bfloat16(),
        "predictor.nan": torch.tensor([float("nan"), -0.0, 1e-45]),
        "predictor.count": torch.tensor(3),
    }
    model["predictor.shared"] = model["predictor.nan"]  # one memory under two names
    write_folder(Checkpoint(7, 1.25, CONFIG_TREE, model, {"state": {}}), tmp_path)
    torch.save(model, tmp_path.with_suffix(".expected"))
    return tmp_path


def test_a_folder_gives_back_every_bit_and_the_config_but_no_optimiser(folder: Path) -> None:
    expected = torch.load(folder.with_suffix(".expected"))
    assert is_folder(folder)
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    for mmap in (False, True):
        found = read_folder(folder, mmap=mmap)
        assert (found.step, found.seconds, found.config, found.optimizer) == (7, 1.25, CONFIG_TREE, {})
        assert found.model.keys() == expected.keys()
        for name, value in expected.items():
            assert found.model[name].dtype == value.dtype
            assert found.model[name].contiguous().flatten().tolist().__repr__() == value.flatten().tolist().__repr__()


def _change(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(content | changes))


def _flip(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def _cut(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_cut, r"has \d+ of \d+ bytes \(49 %\|50 %\); .* again"),
        (_flip, "is not the file that config.json describes"),
        (lambda folder: (folder / WEIGHTS).unlink(), "is missing; download or copy"),
        (lambda folder: (folder / CONFIG).write_text('{"library_name": "openjepa", '), "config.json cannot be read"),
        (lambda folder: (folder / CONFIG).write_text("[" * 100_000), "config.json cannot be read"),
        (lambda folder: (folder / CONFIG).write_text("[1]"), "holds a list instead of a mapping"),
        (lambda folder: _change(folder, format=2), "is of format 2, and this version reads format 1"),
        (lambda folder: _change(folder, networks={"file": "../../secret", "bytes": 3}), "is damaged: it needs"),
        (lambda folder: _change(folder, config={"modality": ["image"], "data": {}, "model": {}}), "is damaged"),
    ],
)
def test_a_damaged_folder_is_refused_in_a_sentence(damage: Any, sentence: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=sentence.replace(r"\|", "|")) as caught:
        read_folder(folder)
    assert "\n" not in str(caught.value)


def test_only_a_folder_of_this_format_is_taken_for_one(folder: Path, tmp_path: Path) -> None:
    _change(folder, library_name="transformers", model_type="ijepa")
    assert not is_folder(folder)
    assert not is_folder(tmp_path / "nothing")
    write_folder(replace(Checkpoint(0, 0, CONFIG_TREE, {}, {}), step=1), folder)
    assert is_folder(folder)
