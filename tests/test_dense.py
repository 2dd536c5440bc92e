"""V-JEPA 2.1 (Mur-Labadia et al. 2026): joined levels, predictions of visible tokens and their weights.

A plain implementation, written from the paper, has the same predictions, loss and gradients; so has the authors' code
where `JEPA_OFFICIAL_CODE` names a folder with a checkout `vjepa2/` of it.
"""

import importlib
import os
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import MODEL, Noise, NoiseConfig, PaddedNoise, padded, random_masks, randomise
from torch import Tensor

from jepa.config import ConfigError
from jepa.data import seeded
from jepa.encoder import VitSize
from jepa.loss import LossConfig, prediction_loss
from jepa.masking import Masks, RandomMaskConfig, TubeMaskConfig, nearest_target
from jepa.model import JEPA
from jepa.model_config import ModelConfig
from jepa.ops.published_positions import spread
from jepa.positions import grid_positions
from jepa.predictor import PredictorConfig
from jepa.targets import VISIBLE
from jepa.training.checks import check_config
from jepa.training.config import Config
from jepa.training.stages import StageConfig
from modalities.image import ImageConfig
from modalities.video import Video, VideoConfig

State = dict[str, Tensor]
LEVELS, HEADS, WIDTH = (3, 6, 9, 12), 2, 48
TUBES = (TubeMaskConfig(blocks=3, scale=0.2), TubeMaskConfig(blocks=1, scale=0.5))
VIDEO = Video(VideoConfig(frames=4, image_size=64, patch_size=16, masking=TUBES))
DENSE = ModelConfig(
    size=VitSize(width=WIDTH, depth=12, heads=HEADS),
    positions="rotary_vjepa2_1",
    levels=LEVELS,
    target_layers=LEVELS,
    target_join="each",
    predictor=PredictorConfig(width=24, depth=4, heads=HEADS, blocks="joint"),
)
LOSS = LossConfig(distance="l1", visible="distance", visible_weight=0.5)
WEIGHTS = {"latent": 1.0, VISIBLE: 0.5}


@pytest.fixture(scope="module")
def ours() -> JEPA:
    model = JEPA(DENSE, VIDEO, ("latent", VISIBLE))
    randomise(model)
    return model


def clips(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 4, 64, 64, generator=torch.Generator().manual_seed(3))


def drawn_masks(count: int = 2) -> list[Masks]:
    return list(VIDEO.sample_masks(count, seeded("dense")))


def step(model: JEPA, masks: list[Masks]) -> tuple[Any, Tensor]:
    """Predictions and loss of a step; gradients are left in the model."""
    model.zero_grad()
    predictions = model([clips()], masks, tuple(WEIGHTS)).predictions
    loss = prediction_loss(predictions, LOSS, WEIGHTS)
    loss.backward()
    return predictions, loss.detach()


class Plain:
    """The networks and the loss, one token list at a time, from our weights."""

    def __init__(self, state: State) -> None:
        self.state = {name: value.clone().requires_grad_(value.is_floating_point()) for name, value in state.items()}
        steps = torch.arange(4.0) * 15 / 3  # 4 tokens a side, spread over 16
        self.places = torch.stack(torch.meshgrid(torch.arange(2.0), steps, steps, indexing="ij"), -1).view(-1, 3)
        self.cells = torch.stack(
            torch.meshgrid(torch.arange(2.0), torch.arange(4.0), torch.arange(4.0), indexing="ij"), -1
        ).view(-1, 3)

    def linear(self, name: str, tokens: Tensor) -> Tensor:
        return tokens @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, name: str, tokens: Tensor) -> Tensor:
        return normed(tokens, 1e-6) * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def block(self, name: str, tokens: Tensor, places: Tensor) -> Tensor:
        parts = self.linear(f"{name}.attention.qkv", self.norm(f"{name}.norm1", tokens)).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (HEADS, -1)).transpose(0, 1) for part in parts)  # [H, N, C]
        scores = rotated(query, places) @ rotated(key, places).transpose(1, 2) / query.shape[-1] ** 0.5
        attended = (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)
        tokens = tokens + self.linear(f"{name}.attention.proj", attended)
        hidden = self.linear(f"{name}.mlp.0", self.norm(f"{name}.norm2", tokens))
        return tokens + self.linear(f"{name}.mlp.2", torch.nn.functional.gelu(hidden))

    def encode(self, network: str, clip: Tensor, kept: Tensor) -> list[Tensor]:
        """The four levels of the tokens `kept` of one clip, each normed by a norm of its own."""
        weight = self.state[f"{network}.embedding.project.weight"].view(WIDTH, 3, 2, 16, 16)
        bias = self.state[f"{network}.embedding.project.bias"]
        embedded = torch.nn.functional.conv3d(clip[None], weight, bias, (2, 16, 16))
        tokens = embedded[0].flatten(1).T[kept]
        levels = []
        for number in range(12):
            tokens = self.block(f"{network}.blocks.{number}", tokens, self.places[kept])
            if number + 1 in LEVELS:
                last = number + 1 == 12
                levels.append(self.norm(f"{network}.norm" if last else f"{network}.level_norms.{len(levels)}", tokens))
        return levels

    def predict(self, levels: list[Tensor], context: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions of the target tokens and of the context tokens of one clip, four levels joined."""
        hidden = torch.nn.functional.gelu(self.linear("predictor.embed.0", torch.cat(levels, -1)))
        seen = self.linear("predictor.embed.2", hidden)
        tokens = torch.cat((self.state["predictor.mask_tokens.0"].expand(len(target), -1), seen))
        places = self.places[torch.cat((target, context))]
        for number in range(4):
            tokens = self.block(f"predictor.blocks.{number}", tokens, places)
        tokens = self.norm("predictor.norm", tokens)
        return (
            self.linear("predictor.project", tokens[: len(target)]),
            self.linear("predictor.project_context", tokens[len(target) :]),
        )

    def loss(self, masks: list[Masks]) -> Tensor:
        losses = []
        for one in masks:
            for clip, context, target in zip(clips(), one.context, one.target[:, 0], strict=True):
                with torch.no_grad():
                    levels = self.encode("target_encoder", clip, torch.arange(32))
                    wanted = torch.cat([normed(level, 1e-5) for level in levels], -1)
                predicted, seen = self.predict(self.encode("context_encoder", clip, context), context, target)
                gaps = (self.cells[context][:, None] - self.cells[target][None]).square().sum(-1).sqrt()
                weight = 1 / gaps.min(dim=1).values.sqrt()
                visible = ((seen - wanted[context]).abs() * weight[:, None]).mean()
                losses.append((predicted - wanted[target]).abs().mean() + 0.5 * visible)
        return torch.stack(losses).mean()


def normed(tokens: Tensor, eps: float) -> Tensor:
    return (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + eps).sqrt()


def rotated(heads: Tensor, places: Tensor) -> Tensor:
    """[H, N, C]: a third of the channel pairs turns with each coordinate; pairs that are left over stay."""
    pairs = heads.shape[-1] // 2
    share = pairs // 3
    speed = 10_000 ** -(torch.arange(share) / share)
    angles = torch.cat([places[:, [axis]] * speed for axis in range(3)], dim=1)
    angles = torch.nn.functional.pad(angles, (0, pairs - 3 * share))
    turned = torch.view_as_complex(heads.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(torch.ones(()), angles)
    return torch.view_as_real(turned).flatten(-2)


def test_loss_and_gradients_equal_those_of_a_plain_implementation(ours: JEPA) -> None:
    masks = drawn_masks()
    plain = Plain(ours.state_dict())
    _, loss = step(ours, masks)
    expected = plain.loss(masks)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    expected.backward()
    for name, parameter in ours.named_parameters():
        gradient = plain.state[name].grad
        if name.startswith("target_encoder."):
            assert gradient is None
            assert parameter.grad is None
        else:
            assert gradient is not None, name
            assert parameter.grad is not None, name
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5, msg=name)


NAMES = (  # the authors' names -> ours
    (r"^(norms_block)\.3\.", "norm."),
    (r"^norms_block\.", "level_norms."),
    (r"^(patch_embed)\.proj\.", "embedding.project."),
    (r"^predictor_(embed|norm|blocks)\.", r"\1."),
    (r"^predictor_proj_context\.", "project_context."),
    (r"^predictor_proj\.", "project."),
    (r"\.attn\.", ".attention."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
)


def renamed(state: State, prefix: str) -> State:
    """Their weights under our names. On videos alone, the vector that marks a video is part of biases."""
    ours, mark = {}, state["video_mod_embed"].flatten()
    for name, value in state.items():
        if name.startswith(("img_mod_embed", "video_mod_embed", "patch_embed_img")):
            continue
        if name in ("patch_embed.proj.bias", "predictor_embed.2.bias") or name.startswith("mask_tokens."):
            value = value.flatten() + mark
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        ours[prefix + name] = value.flatten(1) if name == "embedding.project.weight" else value
    return ours


@pytest.fixture
def official() -> Any:
    """The authors' modules: networks, the wrapper of the predictor, distances."""
    root = Path(os.environ.get("JEPA_OFFICIAL_CODE", "")) / "vjepa2"
    if "JEPA_OFFICIAL_CODE" not in os.environ or not (root / "app" / "vjepa_2_1").is_dir():
        pytest.skip("JEPA_OFFICIAL_CODE names no folder with a checkout vjepa2/ that has app/vjepa_2_1")
    before = set(sys.modules)
    sys.path.insert(0, str(root))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = ("models.vision_transformer", "models.predictor", "models.utils.masks_dist")
        yield [importlib.import_module(f"app.vjepa_2_1.{name}") for name in names]
    sys.path.remove(str(root))
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("app", "src"):
            del sys.modules[name]


def test_predictions_and_loss_equal_those_of_the_authors_code(official: Any) -> None:
    transformers, predictors, distances = official
    sizes = {"img_size": 64, "patch_size": 16, "num_frames": 4, "tubelet_size": 2, "use_rope": True}
    options = {**sizes, "interpolate_rope": True, "img_temporal_dim_size": 1, "mlp_ratio": 4, "qkv_bias": True}
    options["norm_layer"] = lambda dim: torch.nn.LayerNorm(dim, eps=1e-6)
    encoder = transformers.VisionTransformer(embed_dim=WIDTH, depth=12, num_heads=HEADS, **options)
    options |= {"use_mask_tokens": True, "num_mask_tokens": 1, "return_all_tokens": True}
    predictor = predictors.VisionTransformerPredictor(
        embed_dim=WIDTH, predictor_embed_dim=24, depth=4, num_heads=HEADS, **options
    )
    for network in (encoder, predictor):
        randomise(network)
    model = JEPA(DENSE, VIDEO, ("latent", VISIBLE))
    networks = {"context_encoder.": encoder, "predictor.": predictor, "target_encoder.": encoder}
    states = [renamed(network.state_dict(), prefix) for prefix, network in networks.items()]
    model.load_state_dict({name: value for state in states for name, value in state.items()})

    masks = drawn_masks()
    predictions, loss = step(model, masks)
    whole = encoder(clips(), training=True)
    targets = torch.cat([normed(level, 1e-5) for level in whole.chunk(4, -1)], -1)
    losses = []
    for one, prediction in zip(masks, predictions, strict=True):
        hidden = one.target[:, 0]
        pair = predictor(encoder(clips(), masks=one.context, training=True), one.context, hidden, mask_index=0)
        weights = distances.compute_mask_distance([[hidden]], [[one.context]], 4, False)[0][0]
        for kind, expected, tokens in (("latent", pair[0], hidden), (VISIBLE, pair[1], one.context)):
            found = prediction.pairs[kind].predicted[:, 0].flatten(2)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            gaps = (expected - targets.gather(1, tokens.unsqueeze(-1).expand_as(expected))).abs()
            losses.append(WEIGHTS[kind] * (gaps / weights.unsqueeze(-1) if kind == VISIBLE else gaps).mean())
    torch.testing.assert_close(loss, torch.stack(losses).sum().detach() / len(masks), rtol=1e-5, atol=1e-6)


def test_the_weight_of_visible_tokens_rises_between_two_shares_of_the_run() -> None:
    loss = LossConfig(visible="uniform", visible_weight=0.5, visible_ramp=(0.1, 0.3))
    config = Config(modality="video", run_dir=Path(), steps=100, data=VIDEO.config, model=DENSE, loss=loss)
    weights = [config.weights(number)[VISIBLE] for number in (0, 10, 20, 30, 99)]
    assert weights == pytest.approx([0, 0, 0.25, 0.5, 0.5])
    at_once = replace(config, loss=LossConfig(visible="uniform", visible_weight=0.5))
    assert at_once.weights(0)[VISIBLE] == 0.5
    assert replace(config, loss=LossConfig()).weights(99) == {"latent": 1.0}
    with pytest.raises(ValueError, match="visible_ramp"):
        LossConfig(visible_ramp=(0.3, 0.1))


def test_padding_is_no_visible_token_and_hides_nothing() -> None:
    small = replace(MODEL, predictor=replace(MODEL.predictor, blocks="joint"))
    model = JEPA(small, PaddedNoise(NoiseConfig()), ("latent", VISIBLE))
    randomise(model)
    masks = [random_masks(3, blocks=2, size=5, seed=2)]
    pair = model([padded()], masks, tuple(WEIGHTS)).predictions[0].pairs[VISIBLE]
    valid = model.context_encoder.valid(padded())
    assert valid is not None
    assert pair.valid is not None
    assert pair.nearest is not None
    bound = masks[0].bind(valid)
    positions = grid_positions((4, 6))
    for row in range(3):
        hidden = bound.target[row].flatten()[bound.valid_target[row].flatten()]  # type: ignore[index]
        assert torch.equal(pair.valid[row, 0], valid[row, bound.context[row]])
        if len(hidden):
            gaps = (positions[bound.context[row]][:, None] - positions[hidden][None]).square().sum(-1).sqrt()
            torch.testing.assert_close(pair.nearest[row, 0], gaps.amin(dim=1))
    loss = prediction_loss(model([padded()], masks, tuple(WEIGHTS)).predictions, LOSS, {VISIBLE: 1.0})
    errors = (pair.predicted - pair.target).abs().flatten(3).mean(3) / pair.nearest.sqrt()
    torch.testing.assert_close(loss, errors[pair.valid].sum() / pair.valid.sum())


def test_a_sample_without_hidden_tokens_has_no_weight() -> None:
    masks = random_masks(2, seed=1).bind(torch.tensor([[True] * 24, [False] * 24]))
    nearest = nearest_target(masks, grid_positions((4, 6)))
    assert nearest[0].max() < 6
    assert torch.isinf(nearest[1]).all()


def test_spread_positions_are_those_of_the_pretraining_at_any_resolution() -> None:
    coarse, fine = spread(grid_positions((2, 4, 4))), spread(grid_positions((2, 31, 31), (2, 4, 4)))
    assert torch.equal(coarse[:, 0], grid_positions((2, 4, 4))[:, 0])
    assert torch.equal(coarse[:, 1:].unique(), torch.tensor([0.0, 5.0, 10.0, 15.0]))
    torch.testing.assert_close(fine[:31, 2], torch.arange(31) / 2)
    assert torch.equal(spread(grid_positions((1, 1, 1))), torch.zeros(1, 3))


@pytest.mark.parametrize("levels", [(3, 6), (6, 3, 12), (3, 3, 12), (3, 13)])
def test_levels_that_do_not_rise_to_the_last_block_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"levels: .* must rise, and end with the last block, 12"):
        replace(DENSE, levels=levels)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"stages": (StageConfig(predict={"pixels": 1.0}),)}, "every stage must predict latent"),
        ({"model": replace(MODEL, predictor=replace(MODEL.predictor, blocks="separate"))}, "blocks=joint"),
        ({"model": replace(MODEL, predictor=replace(MODEL.predictor, attention="cross"))}, "attention=self"),
        ({"data": ImageConfig(source="scenes", masking=RandomMaskConfig(predicted=0.5))}, "data.masking.predicted=1"),
    ],
)
def test_a_loss_on_visible_tokens_that_cannot_work_is_refused(
    settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    joint = replace(MODEL, predictor=replace(MODEL.predictor, blocks="joint"))
    base: dict[str, Any] = {"modality": "noise", "run_dir": tmp_path, "data": NoiseConfig(), "model": joint}
    check_config(Config(**base, loss=LOSS), Noise(NoiseConfig()))
    with pytest.raises(ConfigError, match=f"loss.visible: .*{sentence}"):
        check_config(Config(**{**base, **settings}, loss=LOSS), Noise(NoiseConfig()))
