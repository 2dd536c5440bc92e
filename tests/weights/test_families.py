"""Encoders of other families give the features of timm and open_clip; wrong names and files are one sentence."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from toy_families import open_clip_model, published, random_network

import jepa
from jepa.checkpoint import CheckpointError
from jepa.config import ConfigError
from jepa.weights.families.encoder import FamilyEncoder
from jepa.weights.families.names import FamilyName
from jepa.weights.families.open_clip_towers import OpenClipFamily
from jepa.weights.opened import open_source

TIMM = [("toy_mae.mae", "toy_mae", 32), ("toy_mae.mae", "toy_dino", 32), ("toy_dinov2", "toy_dinov2", 42)]
TIMM += [("toy_dinov3", "toy_dinov3", 32), ("toy_siglip", "toy_siglip", 32)]


def encoder_of(source: str, *overrides: str) -> FamilyEncoder:
    encoder = open_source(source, overrides).encoder()
    assert isinstance(encoder, FamilyEncoder)
    return encoder


def images(size: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("model", "layout", "side"), TIMM)
def test_features_of_published_files_are_those_of_timm(model: str, layout: str, side: int, tmp_path: Path) -> None:
    network: Any = random_network(model, side)
    torch.save(published(layout, network.state_dict()), tmp_path / "weights.pth")
    source, inputs, first = f"timm:{model}@{tmp_path / 'weights.pth'}", images((side, side)), network.num_prefix_tokens
    encoder = encoder_of(source)
    with torch.inference_mode():
        features, own = network.forward_features(inputs), encoder.encode(inputs, 2)
        same(encoder(inputs), features[:, first:])
        same(encoder.last_layers(inputs, None, 2)[-1], features[:, first:])
        (before, _) = network.forward_intermediates(inputs, indices=2, output_fmt="NLC", intermediates_only=True)
        same(own.layers[0], before)
        pooled = network.forward_head(features) if layout == "toy_siglip" else features[:, 0]
        assert own.pooled is not None
        same(own.pooled, pooled)
        larger = (side + 2 * encoder.patch, side + encoder.patch)
        network.set_input_size(img_size=larger)
        found = encoder_of(source, f"data.image_size=[{larger[0]},{larger[1]}]")(images(larger))
        same(found, network.forward_features(images(larger))[:, first:])


@pytest.mark.parametrize("trunk", [None, "toy_siglip"])
def test_features_of_a_whole_clip_are_those_of_its_image_tower(
    trunk: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
    vision = own if trunk is None else {"timm_model_name": trunk, "timm_pool": "map", "timm_proj": "linear"}
    name = f"toy-clip-{trunk}"
    model: Any = open_clip_model(tmp_path, name, {"image_size": 32, **vision})
    save_file(model.state_dict(), tmp_path / "clip.safetensors")
    source, inputs = f"open_clip:{name}@{tmp_path / 'clip.safetensors'}", images((32, 32))
    opened = open_source(source)
    assert opened.config.data.pixel_mean[0] == pytest.approx(0.48145466)
    encoder = encoder_of(source)
    assert "are not of the encoder and are left out (logit_scale, text)" in capsys.readouterr().err
    if trunk is not None:
        jepa.load(f"timm:{trunk}@{tmp_path / 'clip.safetensors'}")
        assert "are left out (logit_scale, text)" in capsys.readouterr().err
    with torch.inference_mode():
        layers, pooled = encoder.encode(inputs, 2)
        assert pooled is not None
        same(pooled, model.encode_image(inputs))
        if trunk is None:
            found = model.visual.forward_intermediates(inputs, indices=2, output_fmt="NLC")["image_intermediates"]
            same(layers[-1], model.visual.ln_post(found[-1]))
            same(layers[0], found[0])
        else:
            same(layers[-1], model.visual.trunk.forward_features(inputs))
        assert encoder_of(source, "data.image_size=48")(images((48, 48))).shape == (2, 36, encoder.dim)


def test_a_convolutional_network_gives_its_map_of_features() -> None:
    encoder, inputs = encoder_of("timm:test_resnet@random", "data.image_size=[96,64]"), images((96, 64))
    with torch.inference_mode():
        features: Tensor = encoder.network.forward_features(inputs)
        same(encoder(inputs), features.flatten(2).transpose(1, 2))
    assert encoder.grid == (3, 2)
    assert encoder.encode(inputs, 4).pooled is None


def test_pixel_statistics_are_those_of_the_weights() -> None:
    for tag, mean in (("mae", 0.485), ("augreg", 0.5)):
        view = jepa.load_modality(f"timm:toy_mae.{tag}@random").evaluation_view(torch.zeros(3, 40, 40).byte())
        assert view[0].min() == pytest.approx(-mean / (0.229 if tag == "mae" else 0.5), rel=1e-4)


def test_a_named_tag_gives_the_statistics_of_a_file_of_open_clip() -> None:
    mean, _ = OpenClipFamily(FamilyName("open_clip", "ViT-L-14.laion2b_s32b_b82k", "own.pth")).pixels
    assert mean == (0.5, 0.5, 0.5)


def test_a_norm_after_the_average_is_part_of_the_pooled_vector() -> None:
    encoder, inputs = encoder_of("timm:toy_eva02@random"), images((32, 32))
    with torch.inference_mode():
        pooled = encoder.encode(inputs, 1).pooled
        assert pooled is not None
        same(pooled, encoder.network(inputs))


def test_clips_are_encoded_frame_by_frame() -> None:
    opened = open_source("timm:toy_mae@random", ["data.frames=4"], modality="video")
    clip = torch.randn(2, 3, 4, 32, 32)
    encoder = opened.encoder()
    frames = encoder_of("timm:toy_mae@random")(clip.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 2, 2)).mean(dim=2)
    with torch.inference_mode():
        same(encoder(clip), frames.flatten(1, 2))
    assert opened.modality.grid == (2, 4, 4)


class _Executes:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def test_wrong_names_and_files_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = random_network("toy_mae", 32).state_dict()
    torch.save(weights, "whole.pth")
    torch.save({key: value for key, value in weights.items() if key != "blocks.1.mlp.fc1.bias"}, "part.pth")
    torch.save({**weights, "extra.weight": torch.zeros(1)}, "more.pth")
    torch.save({**weights, "pos_embed": torch.zeros(1, 12, 48)}, "odd.pth")
    torch.save({"epoch": 3}, "empty.pth")
    Path("code.pth").write_bytes(pickle.dumps({"model": _Executes()}))
    Path("cut.safetensors").write_bytes(b"\x10\x00\x00")
    for source, words in (
        ("timm:vit_bse_patch16_224", "did you mean 'vit_base_patch16_224'"),
        ("timm:toy_mae.dino@whole.pth", "no weights 'dino' of toy_mae; tags: augreg, mae"),
        ("timm:toy_mae@whole.pth", "name the tag of yours, as in timm:toy_mae.augreg@whole.pth"),
        ("timm:toy_mae.mae@nowhere.pth", "no file nowhere.pth"),
        ("timm:toy_mae.mae@part.pth", "are missing, such as blocks.1.mlp.fc1.bias"),
        ("timm:toy_mae.mae@more.pth", "belong to no part of it, such as extra.weight"),
        ("timm:toy_dinov3@whole.pth", "the weights in whole.pth are not those of timm:toy_dinov3"),
        ("timm:toy_mae.mae@odd.pth", "timm cannot bring them into the shapes of this model"),
        ("timm:toy_mae.mae@empty.pth", "holds no weights of a network"),
        ("timm:toy_mae.mae@code.pth", "code.pth"),
        ("timm:toy_mae.mae@cut.safetensors", "cannot be read"),
        ("timm:hiera_tiny_224@random", "gives no map of features"),
        ("open_clip:ViT-B-33@random", "did you mean 'ViT-B-32'"),
        ("open_clip:ViT-B-32", "as in open_clip:ViT-B-32@openai"),
        ("open_clip:ViT-B-32@openai", "use open_clip:ViT-B-32-quickgelu"),
        ("open_clip:ViT-L-14@whole.pth", "name the tag of yours, as in open_clip:ViT-L-14.openai@whole.pth"),
        ("open_clip:ViT-L-14.metaclip@whole.pth", "no weights 'metaclip' of ViT-L-14; tags: openai,"),
        ("open_clip:RN50@random", "gives no patch tokens"),
    ):
        with pytest.raises(CheckpointError) as raised:
            open_source(source).encoder()
        assert words in str(raised.value)
        assert "\n" not in str(raised.value)
    assert not Path("executed").exists()
    with pytest.raises(ConfigError, match="patches of 8 pixels, which cannot be changed"):
        open_source("timm:toy_mae@random", ["data.patch_size=4"]).encoder()


def test_weights_that_cannot_be_downloaded_are_never_random(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(CheckpointError, match=r"cannot be downloaded from timm/toy_dinov2\.lvd \(ConnectionError\)"):
        open_source("timm:toy_dinov2").encoder()
    with pytest.raises(CheckpointError, match="timm:test_vit2@random"):
        open_source("timm:test_vit2").encoder()
    assert timm.is_model("toy_dinov2")
