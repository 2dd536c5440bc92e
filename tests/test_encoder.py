"""The encoder: patches are convolutions, dropped tokens have no influence, sizes are those of the papers."""

import dataclasses
import itertools
import math
import weakref
from typing import Any

import pytest
import torch
from tiny import LENGTHS, MODEL, SIZE, Noise, NoiseConfig, PaddedNoise, noise, padded, random_masks, randomise
from torch import Tensor, nn

from jepa.encoder import (
    SIZES,
    Encoder,
    EncoderConfig,
    PatchEmbedding,
    PositionKind,
    VitSize,
    gather_tokens,
    patch_embedding,
)
from jepa.masking import Masks
from jepa.model import JEPA
from jepa.ops.attention import rotation
from jepa.positions import Grid, grid_positions

KINDS: tuple[PositionKind, ...] = ("sincos", "rotary")


def encoder_of(positions: PositionKind, grid: Grid = (4, 6)) -> Encoder:
    encoder = Noise(NoiseConfig(grid=grid)).encoder(EncoderConfig(size=SIZE, positions=positions))
    randomise(encoder)
    return encoder


def test_embedding_image_patches_is_a_strided_convolution() -> None:
    embedding = patch_embedding("b c (h p) (w q) -> b (h w) (c p q)", 3 * 4 * 5, 16, p=4, q=5)
    convolution = nn.Conv2d(3, 16, (4, 5), stride=(4, 5))
    copy_weights(embedding, convolution, embedding.project.weight.unflatten(1, (3, 4, 5)))
    images = torch.randn(2, 3, 12, 20)
    torch.testing.assert_close(embedding(images), convolution(images).flatten(2).mT, atol=1e-5, rtol=1e-4)


def test_embedding_tubelets_is_a_strided_convolution_in_three_dimensions() -> None:
    embedding = patch_embedding("b c (t u) (h p) (w q) -> b (t h w) (u p q c)", 2 * 4 * 4 * 3, 16, u=2, p=4, q=4)
    convolution = nn.Conv3d(3, 16, (2, 4, 4), stride=(2, 4, 4))
    copy_weights(embedding, convolution, embedding.project.weight.unflatten(1, (2, 4, 4, 3)).permute(0, 4, 1, 2, 3))
    clips = torch.randn(2, 3, 6, 8, 12)
    torch.testing.assert_close(embedding(clips), convolution(clips).flatten(2).mT, atol=1e-5, rtol=1e-4)


def copy_weights(embedding: PatchEmbedding, convolution: nn.Conv2d | nn.Conv3d, weight: Tensor) -> None:
    convolution.load_state_dict({"weight": weight.detach(), "bias": embedding.project.bias.detach()})


def test_gathering_tokens_equals_indexing_each_sample() -> None:
    tokens, indices = torch.randn(3, 24, 5), random_masks(3).target
    expected = torch.stack([row[index] for row, index in zip(tokens, indices, strict=True)])
    assert torch.equal(gather_tokens(tokens, indices), expected)


def test_an_embedding_with_its_own_patches_embeds_them_also_where_tokens_are_kept() -> None:
    class Doubled(PatchEmbedding):
        def patches(self, inputs: Tensor) -> Tensor:
            return 2 * super().patches(inputs)

    embedding = Doubled("b c (h p) (w q) -> b (h w) (c p q)", 8, 16, {"p": 2, "q": 2})
    inputs, keep = noise(3), random_masks(3).context
    torch.testing.assert_close(embedding(inputs, keep), gather_tokens(embedding(inputs), keep))


@pytest.mark.parametrize("kind", KINDS)
def test_keeping_all_tokens_in_order_equals_no_selection(kind: PositionKind) -> None:
    encoder, inputs = encoder_of(kind), noise(3)
    every = torch.arange(24).expand(3, -1)
    torch.testing.assert_close(encoder(inputs, every), encoder(inputs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_of_dropped_patches_cannot_influence_the_kept_ones(kind: PositionKind) -> None:
    encoder, inputs, keep = encoder_of(kind), noise(3), random_masks(3).context
    kept = torch.zeros(3, 24).scatter(1, keep, 1.0).view(3, 1, 4, 6)
    kept = kept.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) > 0  # bool [B, 1, H, W]
    disturbed = torch.where(kept, inputs, noise(3, seed=1))
    assert torch.equal(encoder(disturbed, keep), encoder(inputs, keep))
    assert not torch.allclose(gather_tokens(encoder(disturbed), keep), gather_tokens(encoder(inputs), keep), atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_kept_tokens_changes_only_the_order_of_outputs(kind: PositionKind) -> None:
    encoder, inputs, keep = encoder_of(kind), noise(3), random_masks(3).context
    order = torch.randperm(keep.shape[1])
    torch.testing.assert_close(encoder(inputs, keep[:, order]), encoder(inputs, keep)[:, order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_patches_at_different_positions_are_encoded_differently(kind: PositionKind) -> None:
    """Rotary positions distinguish positions only relative to other tokens, so one patch differs from the rest."""
    inputs = torch.ones(1, 2, 8, 12)
    inputs[..., :2, :2] = 2.0
    tokens = encoder_of(kind)(inputs)[0, 1:]
    assert torch.pdist(tokens.detach()).min() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [False, True])
def test_a_padded_sample_is_encoded_as_if_alone_without_padding(kind: PositionKind, kept: bool) -> None:
    """Values of padding therefore change neither tokens nor pooled vectors."""
    encoder = PaddedNoise(NoiseConfig()).encoder(EncoderConfig(size=SIZE, positions=kind))
    randomise(encoder)
    masks = random_masks(3, context=14, blocks=1) if kept else Masks.of_context(torch.arange(24).expand(3, -1))
    masks = masks.bind(encoder.valid(padded()))
    tokens, valid = encoder(padded(), masks if kept else None), masks.context < LENGTHS.unsqueeze(1)
    assert torch.equal(encoder(padded(seed=1), masks if kept else None)[valid], tokens[valid])
    pooled = encoder.pool(tokens, masks)["tokens"]
    for row in range(3):
        alone = (padded()[0][[row]], LENGTHS[[row]])
        expected = encoder(alone, Masks.of_context(masks.context[[row]][:, valid[row]]))
        torch.testing.assert_close(tokens[row][valid[row]], expected[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(pooled[row], expected.mean(dim=1)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_activation_checkpointing_changes_no_gradient(kind: PositionKind) -> None:
    gradients = []
    for checkpointed in (False, True):
        encoder = encoder_of(kind)
        encoder.activation_checkpointing = checkpointed
        encoder(noise(3), random_masks(3).context).square().mean().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_coarser_input_is_encoded_as_the_tokens_at_the_centres_of_its_cells(kind: PositionKind) -> None:
    encoder = encoder_of(kind, grid=(6, 9))
    centres = torch.arange(54).view(6, 9)[1::3, 1::3].reshape(1, -1)
    large, small = torch.zeros(2, 2, 12, 18), noise(2, (2, 3))
    for (row, column), offset in itertools.product(itertools.product(range(2), range(3)), range(2)):
        large[..., 6 * row + 2 + offset, 6 * column + 2 : 6 * column + 4] = small[
            ..., 2 * row + offset, 2 * column : 2 * column + 2
        ]
    expected = encoder(large, centres.expand(2, -1))
    encoder.set_positions(grid_positions((2, 3), (6, 9)))
    torch.testing.assert_close(encoder(small), expected, atol=1e-5, rtol=1e-4)


def test_the_output_is_the_last_layer_normed() -> None:
    encoder = encoder_of("sincos")
    layers = encoder.layers(noise(2))
    assert len(layers) == SIZE.depth
    assert torch.equal(layers[-1], encoder(noise(2)))
    torch.testing.assert_close(encoder.norm(encoder.blocks[1](layers[0])), layers[-1])


def test_layers_that_are_not_wanted_are_freed_while_the_encoder_runs() -> None:
    encoder = Noise(NoiseConfig()).encoder(EncoderConfig(size=dataclasses.replace(SIZE, depth=6)))
    outputs: list[weakref.ref[Tensor]] = []
    alive: list[list[int]] = []

    def watch(*of_block: Any) -> None:
        outputs.append(weakref.ref(of_block[-1]))
        alive.append([number for number, output in enumerate(outputs, start=1) if output() is not None])

    for block in encoder.blocks:
        block.register_forward_hook(watch)
    with torch.no_grad():
        expected = encoder.outputs(noise(2))
        for call, kept in (
            (lambda: encoder.select(noise(2), None, (2, -1)), {2}),
            (lambda: encoder.last_layers(noise(2), None, 2), {5}),
            (lambda: [encoder(noise(2))], set()),
        ):
            outputs.clear()
            alive.clear()
            found = call()
            assert all(set(numbers) <= {number, number - 1} | kept for number, numbers in enumerate(alive, start=1))
            assert torch.equal(found[-1], expected[-1])
            assert len(found) == 1 or torch.equal(found[0], expected[min(kept)])


def test_subclasses_that_change_the_outputs_or_layers_are_asked_for_them() -> None:
    class Doubled(Encoder):
        def outputs(self, inputs: Any, masks: Masks | None = None) -> list[Tensor]:
            return [2 * tokens for tokens in super().outputs(inputs, masks)]

    class Last(Encoder):
        def layers(self, inputs: Any, masks: Masks | None = None) -> list[Tensor]:
            return super().layers(inputs, masks)[-1:]

    plain = encoder_of("sincos")
    for encoder_type, factor, layers in ((Doubled, 2, 2), (Last, 1, 1)):
        changed = encoder_type(plain.embedding, grid_positions((4, 6)), EncoderConfig(size=SIZE))
        changed.load_state_dict(plain.state_dict())
        assert torch.equal(changed(noise(2)), factor * plain(noise(2)))
        found = changed.last_layers(noise(2), None, 4)
        assert len(found) == layers
        assert torch.equal(found[-1], factor * plain(noise(2)))


@pytest.mark.parametrize("network", ["encoder", "predictor"])
def test_rotary_tables_are_computed_once_per_forward_pass(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(f"jepa.{network}.rotation", lambda *given: calls.append(0) or rotation(*given))
    model = JEPA(dataclasses.replace(MODEL, positions="rotary"), Noise(NoiseConfig()))
    model([noise(3)], [random_masks(3)])
    assert len(calls) == 2  # two encoders; context and targets of the predictor


@pytest.mark.parametrize(
    ("name", "patch", "published"),  # parameters of the Vision Transformer of that size with class and position tokens
    [
        ("vit_tiny", 16, 5_524_416),
        ("vit_small", 16, 21_665_664),
        ("vit_base", 16, 85_798_656),
        ("vit_large", 16, 303_301_632),
        ("vit_huge", 14, 630_764_800),
    ],
)
def test_named_sizes_have_the_published_numbers_of_parameters(name: str, patch: int, published: int) -> None:
    grid, width = (224 // patch, 224 // patch), SIZES[name].width
    with torch.device("meta"):
        embedding = patch_embedding("b c (h p) (w q) -> b (h w) (c p q)", 3 * patch**2, width, p=patch, q=patch)
        encoder = Encoder(embedding, grid_positions(grid), EncoderConfig(size=name))
    learned_tokens = width * (1 + 1 + math.prod(grid))  # ours has neither a class token nor learned positions
    assert sum(parameter.numel() for parameter in encoder.parameters()) + learned_tokens == published


def test_the_feed_forward_layers_of_the_giant_are_6144_wide() -> None:
    with torch.device("meta"):
        encoder = Encoder(nn.Identity(), grid_positions((2, 2)), EncoderConfig(size="vit_giant"))
    assert encoder.get_parameter("blocks.0.mlp.0.weight").shape == (6144, 1408)


def test_a_width_that_does_not_divide_into_heads_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width 100 .* 3 heads"):
        VitSize(width=100, depth=2, heads=3)
