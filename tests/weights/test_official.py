"""Files of the official I-JEPA, V-JEPA and V-JEPA 2 code: our features, predictions and losses equal theirs."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from official_code import needs_official_code, official
from tiny import randomise
from torch import Tensor, nn

from jepa.data import seeded
from jepa.loss import prediction_loss
from jepa.masking import Masks
from jepa.weights.load import configured, encoder_of, model_of, read_checkpoint

pytestmark = [needs_official_code, pytest.mark.filterwarnings("ignore::FutureWarning")]
TRAINING = {"opt": {"state": {}}, "scaler": None, "epoch": 3, "loss": 0.5, "batch_size": 8, "world_size": 1, "lr": 1e-3}


class Official(NamedTuple):
    """Networks of the official code, and how it calls them on the masks of a step."""

    encoder: nn.Module
    predictor: nn.Module
    target_encoder: nn.Module
    prefix: str
    predictions: Callable[[Tensor, list[Masks]], list[Tensor]]  # per set of masks [B, M, Kt, D]

    def save(self, path: Path) -> Path:
        networks = {
            name: {f"{self.prefix}{key}": value for key, value in getattr(self, name).state_dict().items()}
            for name in ("encoder", "predictor", "target_encoder")
        }
        torch.save({**networks, **TRAINING}, path)
        return path


def _ijepa() -> Official:
    with official("ijepa") as load:
        vit = load("src.models.vision_transformer")
        encoder = vit.vit_tiny(img_size=[64], patch_size=16)
        predictor = vit.vit_predictor(
            num_patches=16, embed_dim=192, predictor_embed_dim=96, depth=2, num_heads=encoder.num_heads
        )

    def predictions(images: Tensor, masks: list[Masks]) -> list[Tensor]:
        (one,) = masks
        blocks = [one.target[:, number] for number in range(one.target.shape[1])]
        predicted = predictor(encoder(images, [one.context]), [one.context], blocks)  # [M * B, Kt, D]
        return [predicted.unflatten(0, (len(blocks), -1)).transpose(0, 1)]

    return _official(encoder, predictor, "module.", predictions)


def _vjepa() -> Official:
    with official("jepa") as load:
        vit, predictors = load("src.models.vision_transformer"), load("src.models.predictor")
        wrappers = load("src.models.utils.multimask")
        encoders, wrapper = wrappers.MultiMaskWrapper, wrappers.PredictorMultiMaskWrapper
        sizes: dict[str, Any] = {"img_size": 64, "patch_size": 16, "num_frames": 8, "tubelet_size": 2}
        encoder = vit.vit_tiny(**sizes, uniform_power=True)
        predictor = predictors.vit_predictor(
            **sizes,
            embed_dim=192,
            predictor_embed_dim=96,
            depth=2,
            num_heads=encoder.num_heads,
            uniform_power=True,
            use_mask_tokens=True,
            num_mask_tokens=2,
        )

    def predictions(videos: Tensor, masks: list[Masks]) -> list[Tensor]:
        contexts, targets = [one.context for one in masks], [one.target[:, 0] for one in masks]
        encoded = encoders(encoder)(videos, contexts)
        return [one.unsqueeze(1) for one in wrapper(predictor)(encoded, targets, contexts, targets)]

    return _official(encoder, predictor, "module.backbone.", predictions)


def _vjepa2() -> Official:
    with official("vjepa2") as load:
        vit, predictors = load("src.models.vision_transformer"), load("src.models.predictor")
        wrappers = load("src.utils.wrappers")
        encoders, wrapper = wrappers.MultiSeqWrapper, wrappers.PredictorMultiSeqWrapper
        sizes: dict[str, Any] = {"img_size": (64, 64), "patch_size": 16, "num_frames": 8, "tubelet_size": 2}
        rope = {"use_rope": True, "use_sdpa": False}
        encoder = vit.vit_tiny(**sizes, **rope)
        predictor = predictors.vit_predictor(
            **sizes,
            **rope,
            embed_dim=192,
            predictor_embed_dim=192,
            depth=2,
            num_heads=12,
            use_mask_tokens=True,
            num_mask_tokens=10,
        )

    def predictions(videos: Tensor, masks: list[Masks]) -> list[Tensor]:
        contexts, targets = (
            [[one.context for one in masks]],
            [[one.target[:, 0] for one in masks]],
        )  # one length of clips
        (predicted,) = wrapper(predictor)(encoders(encoder)([videos], contexts), contexts, targets)
        return [one.unsqueeze(1) for one in predicted]

    return _official(encoder, predictor, "module.backbone.", predictions)


def _official(encoder: nn.Module, predictor: nn.Module, prefix: str, predictions: Any) -> Official:
    """Random weights, other ones in the target encoder; the tables of positions stay."""
    target_encoder = copy.deepcopy(encoder)
    for network in (encoder, predictor, target_encoder):
        tables = {name: value.clone() for name, value in network.state_dict().items() if "pos_embed" in name}
        randomise(network)
        network.load_state_dict(tables, strict=False)
    for parameter in target_encoder.blocks.parameters():
        parameter.data.mul_(0.9)
    return Official(encoder.eval(), predictor.eval(), target_encoder.eval(), prefix, predictions)


CASES = {"ijepa": _ijepa, "vjepa": _vjepa, "vjepa2": _vjepa2}
SMALL = ("data.frames=8", "data.image_size=64")  # the files of V-JEPA 2 do not state their resolution


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_features_predictions_and_losses_equal_those_of_the_official_code(name: str, tmp_path: Path) -> None:
    theirs = CASES[name]()
    checkpoint = read_checkpoint(theirs.save(tmp_path / f"{name}.pth.tar"))
    config, modality = configured(checkpoint, SMALL if name == "vjepa2" else ())
    ours = model_of(checkpoint, config, modality)
    inputs = torch.randn(2, *modality.example_view().shape)
    for network in ("encoder", "target_encoder"):
        encoder = encoder_of(checkpoint, config, modality, "context_encoder" if network == "encoder" else network)
        torch.testing.assert_close(encoder(inputs), getattr(theirs, network)(inputs), rtol=1e-5, atol=1e-5)
    masks = modality.sample_masks(2, seeded(0))
    predictions, expected = ours([inputs], masks).predictions, theirs.predictions(inputs, masks)
    hidden = F.layer_norm(theirs.target_encoder(inputs), (192,))
    losses = []
    for one, found, mask in zip(expected, predictions, masks, strict=True):
        torch.testing.assert_close(found.pairs["latent"].predicted.squeeze(3), one, rtol=1e-5, atol=1e-5)
        target = torch.stack([hidden[sample][mask.target[sample]] for sample in range(2)])
        losses.append((F.smooth_l1_loss if name == "ijepa" else F.l1_loss)(one, target))
    loss = prediction_loss(predictions, config.loss, {"latent": 1.0})
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)
