"""Attention, blocks and initialisation against independent implementations."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import MODEL, Noise, NoiseConfig, randomise
from torch import nn

from jepa.model import JEPA
from jepa.transformer import Block, CrossBlock, Initialisation, attend, initialise

DIM, HEADS = 24, 3


@pytest.mark.parametrize(("queries", "keys"), [(5, 9), (512, 512)])  # beyond and below the fused kernel's limit
def test_attention_equals_pytorchs_and_a_loop_over_queries(queries: int, keys: int) -> None:
    query, key, value = torch.randn(2, 2, queries, 8), torch.randn(2, 2, keys, 8), torch.randn(2, 2, keys, 8)
    attended = attend(query, key, value)
    torch.testing.assert_close(attended, F.scaled_dot_product_attention(query, key, value), atol=1e-5, rtol=1e-4)
    for token in (0, queries - 1):
        weights = [math.exp(float(query[1, 0, token] @ other) / math.sqrt(8)) for other in key[1, 0]]
        expected = sum(weight * row for weight, row in zip(weights, value[1, 0], strict=True)) / sum(weights)
        torch.testing.assert_close(attended[1, 0, token], expected, atol=1e-5, rtol=1e-4)


def test_a_block_equals_pytorchs_pre_norm_encoder_layer() -> None:
    block = randomised(Block(DIM, HEADS, 4.0))
    layer = nn.TransformerEncoderLayer(
        DIM, HEADS, 4 * DIM, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    names = {
        "self_attn.in_proj_": "attention.qkv.",
        "self_attn.out_proj.": "attention.proj.",
        "linear1.": "mlp.0.",
        "linear2.": "mlp.2.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
    }
    weights = block.state_dict()
    layer.load_state_dict({theirs + w: weights[ours + w] for theirs, ours in names.items() for w in ("weight", "bias")})
    tokens = torch.randn(4, 7, DIM)
    torch.testing.assert_close(block(tokens), layer(tokens), atol=1e-5, rtol=1e-4)


def test_a_cross_block_equals_pytorchs_multi_head_attention_and_a_feed_forward() -> None:
    block = randomised(CrossBlock(DIM, HEADS, 4.0))
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    ours = block.attention
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat((ours.query.weight, ours.key_value.weight)),
            "in_proj_bias": torch.cat((ours.query.bias, ours.key_value.bias)),
            "out_proj.weight": ours.proj.weight,
            "out_proj.bias": ours.proj.bias,
        }
    )
    queries, context = torch.randn(4, 5, DIM), torch.randn(4, 9, DIM)
    seen = block.norm_context(context)
    expected = queries + theirs(block.norm1(queries), seen, seen, need_weights=False)[0]
    expected = expected + block.mlp(block.norm2(expected))
    torch.testing.assert_close(block(queries, context), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("how", ["xavier", "rescaled", "ijepa"])
def test_every_linear_layer_starts_with_the_documented_spread_and_zero_bias(how: Initialisation) -> None:
    network = nn.Module()
    network.blocks = nn.ModuleList(Block(96, 2, 4.0) for _ in range(3))
    network.head = nn.Linear(96, 200)
    initialise(network, how)
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        expected = 0.02
        if how == "xavier":
            expected = math.sqrt(2 / (layer.in_features + layer.out_features))
        elif how == "rescaled" and name.endswith(("attention.proj", "mlp.2")):
            expected /= math.sqrt(2 * (int(name.split(".")[1]) + 1))
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.03), name
        assert layer.bias.abs().max() == 0
    assert all((norm.weight == 1).all() for norm in network.modules() if isinstance(norm, nn.LayerNorm))


def test_only_the_same_seed_gives_the_same_network() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(JEPA(MODEL, Noise(NoiseConfig())).parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def randomised(module: nn.Module) -> nn.Module:
    randomise(module)
    return module


def test_attention_in_bf16_agrees_with_that_in_fp32() -> None:
    query, key, value = torch.randn(3, 2, 3, 7, 16).unbind()
    attended = attend(query.bfloat16(), key.bfloat16(), value.bfloat16())
    assert attended.dtype == torch.bfloat16
    torch.testing.assert_close(attended.float(), attend(query, key, value), atol=4e-2, rtol=4e-2)
