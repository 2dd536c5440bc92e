"""Weights of transformers, timm and V-JEPA 2.1 give the features of these."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from weight_files import hf_ijepa, random_weights, vjepa2_1_file

import jepa
from jepa.checkpoint import CheckpointError
from jepa.masking import Masks
from jepa.weights.load import model_of
from jepa.weights.opened import open_source

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_folders_of_transformers_in_both_vocabularies_and_in_shards_give_its_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = hf_ijepa()
    classifier.ijepa.save_pretrained(tmp_path / "saved")
    classifier.save_pretrained(tmp_path / "shards", max_shard_size="1MB")
    (tmp_path / "memory").mkdir()
    save_file(classifier.ijepa.state_dict(), tmp_path / "memory" / "model.safetensors")
    classifier.config.save_pretrained(tmp_path / "memory")
    (tmp_path / "memory" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]})
    )
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    expected = classifier.ijepa(IMAGES).last_hidden_state
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
    assert open_source(tmp_path / "timm.pth", ["model.size.heads=6"]).config.model.vit.heads == 6


VIDEO = torch.randn(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0))


def plain_vjepa2_1(state: dict[str, Tensor], video: Tensor) -> Tensor:
    """Features of V-JEPA 2.1, from its weights under its names."""
    state = {name.removeprefix("module.backbone."): value for name, value in state.items()}

    def linear(name: str, tokens: Tensor) -> Tensor:
        return F.linear(tokens, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, tokens: Tensor) -> Tensor:
        return F.layer_norm(tokens, (192,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def turned(heads: Tensor) -> Tensor:  # [B, H, N, C]: pairs of neighbouring channels; two are left over
        pairs = torch.view_as_complex(heads.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones(()), angles)).flatten(-2)

    side = torch.arange(4.0) * 15 / 3  # rows and columns spread over those of 16 x 16 tokens
    places = torch.stack(torch.meshgrid(torch.arange(2.0), side, side, indexing="ij"), -1).flatten(0, 2)
    angles = F.pad((places[:, :, None] * 10_000.0 ** -(torch.arange(10) / 10)).flatten(1), (0, 2))
    patches = F.conv3d(video, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], (2, 16, 16))
    tokens = patches.flatten(2).transpose(1, 2) + state["video_mod_embed"]
    for number in range(12):
        block = f"blocks.{number}"
        parts = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", tokens)).unflatten(-1, (3, 3, 64))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(turned(query), turned(key), value).transpose(1, 2).flatten(2)
        tokens = tokens + linear(f"{block}.attn.proj", attended)
        hidden = F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", tokens)))
        tokens = tokens + linear(f"{block}.mlp.fc2", hidden)
    return norm("norms_block.3", tokens)


@torch.no_grad()
@pytest.mark.parametrize("distilled", [False, True])
def test_files_of_v_jepa_2_1_give_its_features_and_a_predictor_only_if_it_is_theirs(
    distilled: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = vjepa2_1_file(tmp_path / "vjepa2_1.pt", distilled=distilled)
    opened = open_source(tmp_path / "vjepa2_1.pt", ["data.frames=4", "data.image_size=64"])
    expected = plain_vjepa2_1(networks["ema_encoder" if distilled else "target_encoder"], VIDEO)
    torch.testing.assert_close(opened.encoder()(VIDEO), expected, rtol=1e-5, atol=1e-5)
    assert ("predictor (it predicts" in capsys.readouterr().err) is distilled
    assert opened.checkpoint is not None
    assert opened.config.data.fps == 4.0
    if distilled:
        with pytest.raises(CheckpointError, match="they have no predictor"):
            model_of(opened.checkpoint, opened.config, opened.modality)
        return
    predictor = model_of(opened.checkpoint, opened.config, opened.modality).predictor
    mark, token = (networks["predictor"][f"module.backbone.{name}"] for name in ("video_mod_embed", "mask_tokens.0"))
    assert torch.equal(predictor.mask_tokens[0], (token + mark).flatten())
    assert (predictor.config.share_mask_token, len(predictor.mask_tokens)) == (True, 8)


@torch.no_grad()
def test_folders_of_transformers_with_v_jepa_2_give_its_features_and_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_pooler_layers": 1}
    sizes |= {"pred_hidden_size": 48, "pred_num_hidden_layers": 2, "pred_num_attention_heads": 3}
    config = transformers.VJEPA2Config(**sizes, crop_size=64, frames_per_clip=4)
    classifier = random_weights(transformers.VJEPA2ForVideoClassification(config))
    classifier.save_pretrained(tmp_path / "classifier")
    classifier.vjepa2.save_pretrained(tmp_path / "model")
    opened = [open_source(tmp_path / name) for name in ("classifier", "model")]
    assert "left out: its attentive probe" in capsys.readouterr().err
    masks = Masks(torch.arange(20).repeat(2, 1), torch.arange(20, 32).repeat(2, 1, 1))
    theirs = classifier.vjepa2(VIDEO.transpose(1, 2), context_mask=[masks.context], target_mask=[masks.target[:, 0]])
    for one in opened:
        torch.testing.assert_close(one.encoder()(VIDEO), theirs.last_hidden_state, rtol=1e-5, atol=1e-5)
        assert one.checkpoint is not None
        networks = model_of(one.checkpoint, one.config, one.modality)
        assert len(networks.predictor.mask_tokens) == 10
        networks.predictor.mask_tokens[0] = networks.predictor.mask_tokens[1]  # transformers uses the second one
        predicted = networks.predict(theirs.last_hidden_state[:, :20], masks)[:, 0, :, 0]
        expected = theirs.predictor_output.last_hidden_state
        torch.testing.assert_close(predicted, expected, rtol=1e-5, atol=1e-5)
