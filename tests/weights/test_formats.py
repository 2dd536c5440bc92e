"""Weights of transformers and timm give their features, and files that are no such weights give one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import randomise
from torch import Tensor, nn

import jepa
from jepa.weights.opened import open_source

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def random_weights(network: nn.Module) -> nn.Module:
    """Random weights, and the fixed table of positions of I-JEPA, columns before rows."""
    randomise(network)
    for name, parameter in network.named_parameters():
        if "pos_embed" in name or "position_embeddings" in name:
            parameter.data.copy_(ijepa_table(parameter.shape[1], parameter.shape[2]))
    return network.eval()


def ijepa_table(tokens: int, width: int) -> Tensor:
    side = round(tokens**0.5)
    rates = 10_000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    column, row = (axis.flatten() for axis in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy"))
    parts = [wave(axis[:, None] * rates) for axis in (column, row) for wave in (torch.sin, torch.cos)]
    return torch.cat(parts, dim=1).float().unsqueeze(0)


@pytest.fixture(scope="module")
def hf_ijepa() -> Any:
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = {"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.IJepaConfig(**sizes, intermediate_size=768, image_size=64, patch_size=16, layer_norm_eps=1e-6)
    return random_weights(transformers.IJepaForImageClassification(config))


@torch.no_grad()
def test_folders_of_transformers_in_both_vocabularies_and_in_shards_give_its_features(
    hf_ijepa: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hf_ijepa.ijepa.save_pretrained(tmp_path / "saved")
    hf_ijepa.save_pretrained(tmp_path / "shards", max_shard_size="1MB")
    (tmp_path / "memory").mkdir()
    save_file(hf_ijepa.ijepa.state_dict(), tmp_path / "memory" / "model.safetensors")
    hf_ijepa.config.save_pretrained(tmp_path / "memory")
    (tmp_path / "memory" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]})
    )
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    expected = hf_ijepa.ijepa(IMAGES).last_hidden_state
    for folder in ("saved", "shards", "memory"):
        torch.testing.assert_close(jepa.load(tmp_path / folder)(IMAGES), expected, rtol=1e-5, atol=1e-5)
    printed = capsys.readouterr().err
    assert "left out: embeddings.position_embeddings, classifier.bias, classifier.weight" in printed
    assert "no predictor" in printed
    data = [open_source(tmp_path / folder).config.data for folder in ("saved", "memory")]
    assert [one.pixel_mean for one in data] == [(0.485, 0.456, 0.406), (0.5, 0.5, 0.5)]
    larger = open_source(tmp_path / "saved", ["data.image_size=96"])
    assert larger.token_encoder()(torch.zeros(1, 3, 96, 96)).shape == (1, 36, 192)


@torch.no_grad()
def test_files_of_timm_give_its_features(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model(
        "vit_huge_patch14_gap_224", img_size=56, embed_dim=192, depth=2, num_heads=3, num_classes=5
    )
    random_weights(network)
    images = IMAGES[..., :56, :56]
    torch.save(network.state_dict(), tmp_path / "timm.pth")
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, tmp_path / "wrapped.pth")
    for name in ("timm.pth", "wrapped.pth"):
        encoder = jepa.load(tmp_path / name)
        torch.testing.assert_close(encoder(images), network.forward_features(images), rtol=1e-5, atol=1e-5)
