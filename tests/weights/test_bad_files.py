"""Files and folders that are not the weights that they seem to be give one sentence, and nothing is executed."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from weight_files import hf_ijepa, ijepa_file

import jepa
from jepa.checkpoint import CheckpointError
from jepa.weights.formats.stored import open_stored
from jepa.weights.load import read_checkpoint


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of a file of I-JEPA that loads."""
    path = ijepa_file(tmp_path_factory.mktemp("weights") / "good.pth.tar")
    jepa.load(path)
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


class Malicious:
    """Executes code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> Any:
        return {**content, "encoder": {key: one for key, one in content["encoder"].items() if key != name}}

    return change


def with_network(network: str, **weights: Any) -> Callable[[dict[str, Any]], Any]:
    names = {name.replace("__", "."): one for name, one in weights.items()}
    return lambda content: {**content, network: {**content[network], **names}}


def with_encoder(**weights: Any) -> Callable[[dict[str, Any]], Any]:
    return with_network("encoder", **weights)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("module.blocks.0.attn.qkv.weight"), "like I-JEPA, but encoder.blocks.0.attn.qkv.weight is missing"),
        (without("module.pos_embed"), "looks like I-JEPA, but encoder.pos_embed is missing"),
        (with_encoder(cls_token=torch.zeros(1, 1, 192)), "encoder.cls_token has no place in these networks"),
        (with_encoder(pos_embed=torch.ones(1, 16, 192)), "encoder.pos_embed is not the fixed table of sines"),
        (with_encoder(pos_embed=torch.ones(1, 15, 192)), "has 15 positions, which are no square grid"),
        (with_encoder(blocks__0__norm1__bias=torch.zeros(7)), r"has shape \[7\], expected \[192\]"),
        (with_network("predictor", predictor_norm__bias=torch.zeros(7)), r"predictor\.norm\.bias has shape \[7\], exp"),
        (with_network("target_encoder", norm__bias=torch.zeros(7)), r"target_encoder\.norm\.bias has shape \[7\], exp"),
        (with_encoder(norm__bias="text"), "encoder.norm.bias is no tensor of floats"),
        (lambda content: {**content, "strange": 1}, "it also holds strange, which no published file has"),
        (lambda content: [content], "it holds a list instead of networks by name"),
        (lambda content: {"student": content["encoder"], "teacher": {}}, "MAE or DINO; name it as timm:NAME@FILE"),
        (lambda content: {"encoder": {}, "predictor": {"module.action_encoder.bias": torch.zeros(1)}}, "V-JEPA 2-AC"),
        (lambda content: {"visual.conv1.weight": torch.zeros(1)}, "CLIP or SigLIP; name it as open_clip:NAME@FILE"),
        (lambda content: {**content, "opt": Malicious()}, r"names \w+.mkdir, and code in a file is never executed"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_gives_one_sentence_and_nothing_is_executed(
    change: Callable[[dict[str, Any]], Any],
    sentence: str,
    content: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(change(content), "bad.pth.tar")
    with pytest.raises(CheckpointError, match=sentence) as error:
        jepa.load("bad.pth.tar", "context_encoder")
    assert str(error.value).count("\n") == 0
    assert not Path("executed").exists()


@pytest.mark.filterwarnings("error")
def test_truncated_and_foreign_files_give_one_sentence(tmp_path: Path) -> None:
    file = ijepa_file(tmp_path / "whole.pth.tar")
    legacy = tmp_path / "legacy.pth.tar"
    torch.save(torch.load(file, weights_only=True), legacy, _use_new_zipfile_serialization=False)
    assert torch.equal(*(read_checkpoint(path).model["predictor.embed.weight"] for path in (file, legacy)))
    files = {
        "cut.pt": (file.read_bytes()[:-3000], "truncated or damaged"),
        "cut_legacy.pt": (legacy.read_bytes()[:-3000], "truncated or damaged"),
        "empty.pt": (b"", "it is empty"),
        "page.pt": (b"<!DOCTYPE html><html>", "no file of torch.save"),
        "graph.pt2": (b"PK", r"it is an exported graph, .* load it with torch\.export\.load\(FILE\)"),
        "graph.onnx": (b"onnx", r"it is an exported graph, .* load it with onnxruntime\.InferenceSession"),
        "bare.pth.tar": (pickle.dumps({"epoch": 1}, protocol=4), "no file of torch.save"),
        "text.safetensors": (b"no weights", "cannot be read"),
    }
    for name, (content, sentence) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name} .*{sentence}"):
            jepa.load(tmp_path / name)
    with pytest.raises(CheckpointError, match="the source is empty"):
        jepa.load("")


def test_damaged_folders_give_one_sentence(tmp_path: Path) -> None:
    hf_ijepa().save_pretrained(tmp_path, max_shard_size="1MB")
    index = tmp_path / "model.safetensors.index.json"
    names = json.loads(index.read_text())
    first = sorted(tmp_path.glob("model-*.safetensors"))[0]
    first.rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=f"no file .*{first.name}"):
        jepa.load(tmp_path)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names["weight_map"], "../moved")}))
    with pytest.raises(CheckpointError, match="no weight_map that names files of its folder"):
        jepa.load(tmp_path)
    index.unlink()
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle, so save the model again"):
        jepa.load(tmp_path)
    (tmp_path / "moved").rename(tmp_path / "model.safetensors")
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has model\.safetensors but no config\.json"):
        jepa.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_act": "gelu"}))
    with pytest.raises(CheckpointError, match="'vit' of transformers, of which ijepa and vjepa2 can be read"):
        jepa.load(tmp_path)


def test_a_lone_file_does_not_take_the_settings_of_a_neighbour(tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text('{"model_type": "vit", "image_mean": [0.5, 0.5, 0.5]}')
    tensors = {"weight": torch.zeros(2)}
    for name, own in {"own.safetensors": False, "model.safetensors": True}.items():
        save_file(tensors, tmp_path / name)
        stored = open_stored(tmp_path / name)
        assert bool(stored.config) == bool(stored.pixels) == own
    for text, sentence in {"{": "metadata 'openjepa' cannot be read", "[1]": "'openjepa' is a list"}.items():
        save_file(tensors, tmp_path / "own.safetensors", metadata={"openjepa": text})
        with pytest.raises(CheckpointError, match=rf"own\.safetensors: .*{sentence}"):
            open_stored(tmp_path / "own.safetensors")
