"""A small V-JEPA 2 against transformers' implementation: predictions, loss and gradients, from the same weights.

transformers encodes the whole video and selects the context afterwards. Training must not do that, so here its layers
encode only the context tokens. Its predictor uses the mask token of each set.
"""

from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny import randomise
from torch import Tensor

from jepa.checkpoint import CheckpointError
from jepa.data import seeded
from jepa.encoder import VitSize
from jepa.loss import LossConfig, prediction_loss
from jepa.masking import Masks
from jepa.model import JEPA
from jepa.model_config import ModelConfig
from jepa.predictor import PredictorConfig
from jepa.weights.formats.vjepa2_transformers import from_state
from jepa.weights.load import read_networks
from modalities.video import Video, VideoConfig

MODALITY = Video(VideoConfig(frames=8, image_size=32, patch_size=8))
MODEL = ModelConfig(
    size=VitSize(width=48, depth=2, heads=2),
    positions="rotary_vjepa2",
    predictor=PredictorConfig(width=32, depth=2, heads=2, blocks="joint", mask_tokens=2),
)


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    vjepa2 = pytest.importorskip("transformers.models.vjepa2.modeling_vjepa2")
    config = vjepa2.VJEPA2Config(
        patch_size=8,
        crop_size=32,
        frames_per_clip=8,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        pred_hidden_size=32,
        pred_num_hidden_layers=2,
        pred_num_attention_heads=2,
        pred_num_mask_tokens=2,
        attn_implementation="eager",
    )
    model = vjepa2.VJEPA2Model(config)
    randomise(model)
    return model.train()


@pytest.fixture
def ours(theirs: torch.nn.Module) -> JEPA:
    model = JEPA(MODEL, MODALITY)
    model.load_state_dict(from_state(theirs.state_dict()))
    return model


def encode_context(theirs: torch.nn.Module, video: Tensor, context: Tensor) -> Tensor:
    """Encode only the context tokens: [B, T, 3, H, W], [B, K] -> [B, K, D]."""
    tokens = theirs.encoder.embeddings(video)
    tokens = tokens.gather(1, context.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
    for layer in theirs.encoder.layer:
        tokens = layer(tokens, context)[0]
    normed: Tensor = theirs.encoder.layernorm(tokens)
    return normed


def predict_targets(theirs: torch.nn.Module, video: Tensor, masks: Masks, number: int) -> Tensor:
    """Predictions of their predictor for one set of masks: [B, Kt, D]."""
    context = encode_context(theirs, video, masks.context)
    index = masks.context.unsqueeze(-1).expand_as(context)
    whole = torch.zeros(len(video), len(MODALITY.positions), context.shape[-1]).scatter(1, index, context)
    embeddings = theirs.predictor.embeddings
    with patch.object(embeddings, "forward", partial(embeddings.forward, mask_index=number)):
        prediction: Tensor = theirs.predictor(whole, [masks.context], [masks.target[:, 0]]).last_hidden_state
    return prediction


def test_predictions_loss_and_gradients_of_both_sets_of_masks_equal_transformers(
    theirs: torch.nn.Module, ours: JEPA
) -> None:
    videos = torch.randn(3, 3, 8, 32, 32)
    masks = MODALITY.sample_masks(3, seeded(0))
    predictions = ours([videos], masks).predictions
    loss = prediction_loss(predictions, LossConfig(distance="l1", normalise_prediction=False), {"latent": 1.0})
    loss.backward()

    theirs.zero_grad()
    swapped = videos.transpose(1, 2)  # [B, T, 3, H, W]
    with torch.no_grad():
        target = theirs.encoder(swapped).last_hidden_state
        target = F.layer_norm(target, target.shape[-1:])
    losses = []
    for number, one in enumerate(masks):
        predicted = predict_targets(theirs, swapped, one, number)
        hidden = one.target[:, 0].unsqueeze(-1).expand_as(predicted)
        pair = predictions[number].pairs["latent"]
        torch.testing.assert_close(pair.predicted.flatten(1, 3), predicted.flatten(1, 1), rtol=1e-4, atol=1e-4)
        losses.append(F.l1_loss(predicted, target.gather(1, hidden)))
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)

    expected.backward()
    gradients = from_state({name: parameter.grad for name, parameter in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        if not name.startswith("target_encoder."):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5)


def test_rotary_positions_of_new_models_differ_from_v_jepa_2(theirs: torch.nn.Module, ours: JEPA) -> None:
    plain = JEPA(ModelConfig(size=MODEL.size, positions="rotary", predictor=MODEL.predictor), MODALITY)
    plain.load_state_dict(ours.state_dict())
    video = torch.randn(1, 3, 8, 32, 32)
    expected = theirs.encoder(video.transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(ours.context_encoder(video), expected, rtol=1e-4, atol=1e-4)
    assert (plain.context_encoder(video) - expected).abs().max() > 0.1


def authors_checkpoint(model: JEPA) -> dict[str, dict[str, Tensor]]:
    """A checkpoint in the layout of V-JEPA 2's authors, with the unused entries that theirs have."""
    words = {"embedding.project": "patch_embed.proj", "attention": "attn", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
    state: dict[str, dict[str, Tensor]] = {"encoder": {}, "target_encoder": {}, "predictor": {}}
    for name, value in model.state_dict().items():
        network, _, rest = name.partition(".")
        for ours, authors in words.items():
            rest = rest.replace(ours, authors)
        if network == "predictor":
            rest = rest.replace("blocks.", "predictor_blocks.") if rest.startswith("blocks") else rest
            rest = f"predictor_{rest}" if rest.startswith(("embed", "norm.")) else rest
            rest = rest.replace("project.", "predictor_proj.")
            value = value.view(1, 1, -1) if "mask_tokens" in rest else value
        if rest == "patch_embed.proj.weight":
            value = value.view(len(value), 3, 2, 8, 8)
        state["encoder" if network == "context_encoder" else network][f"module.backbone.{rest}"] = value
    state["encoder"]["module.backbone.pos_embed"] = torch.zeros(1, 64, 48)
    return state


def test_both_kinds_of_released_file_give_the_same_networks(
    theirs: torch.nn.Module, ours: JEPA, tmp_path: Path
) -> None:
    save_file({name: value.clone() for name, value in theirs.state_dict().items()}, tmp_path / "model.safetensors")
    torch.save({**authors_checkpoint(ours), "epoch": 3, "opt": {"state": {}}}, tmp_path / "vitl.pt")
    for name in ("model.safetensors", "vitl.pt"):
        found = read_networks(tmp_path / name)
        assert set(found) == set(ours.state_dict())
        assert all(torch.equal(found[name], value) for name, value in ours.state_dict().items())
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"broken\.safetensors cannot be read"):
        read_networks(tmp_path / "broken.safetensors")
