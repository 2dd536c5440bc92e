"""Attention, blocks and initialisation against independent implementations."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import MODEL, Noise, NoiseConfig, randomise
from torch import nn

from jepa.model import JEPA
from jepa.ops import cpu_bf16
from jepa.ops.attention import rotation
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_samples_without_valid_keys_attend_to_all_keys_and_have_their_gradients(dtype: torch.dtype) -> None:
    valid = torch.tensor([[True] * 3 + [False] * 4, [False] * 7])
    inputs = [torch.randn(2, 3, 7, 16).to(dtype).requires_grad_() for _ in range(3)]
    masked = torch.autograd.grad(attend(*inputs, valid)[1].sum(), inputs)
    plain = torch.autograd.grad(attend(*inputs)[1].sum(), inputs)
    for one, other in zip(masked, plain, strict=True):
        torch.testing.assert_close(one, other)


def gradients(block: Block, first: int, turned: torch.Tensor | None, dtype: torch.dtype) -> list[torch.Tensor]:
    """Output of a block on noise with padding, and the gradients of input and weights."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 20, DIM, generator=generator).requires_grad_()
    valid = torch.rand(3, 20, generator=generator) > 0.3
    block.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        output = block(tokens, turned, valid, first)
    output.backward(torch.randn(output.shape, generator=generator))
    assert output.dtype == torch.float32  # the residual stream
    return [output.detach(), tokens.grad, *(weight.grad.clone() for weight in block.parameters())]


@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("rotary", [False, True])
def test_a_block_in_bf16_has_outputs_and_gradients_of_the_one_in_fp32(
    first: int, rotary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = randomised(Block(DIM, HEADS, 4.0))
    turned = rotation(torch.rand(1, 20, DIM // HEADS // 2), DIM // HEADS) if rotary else None
    expected = gradients(block, first, turned, torch.float32)
    fast = gradients(block, first, turned, torch.bfloat16)
    monkeypatch.setattr(cpu_bf16, "applies", lambda _tokens: False)
    for found in (fast, gradients(block, first, turned, torch.bfloat16)):
        for one, other in zip(found, expected, strict=True):
            assert (one - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("rotary", [False, True])
def test_a_block_in_bf16_without_gradients_has_the_outputs_of_the_one_in_fp32(first: int, rotary: bool) -> None:
    block, tokens = randomised(Block(DIM, HEADS, 4.0)), torch.randn(3, 20, DIM)
    given, valid = tokens.clone(), torch.rand(3, 20) > 0.3
    turned = rotation(torch.rand(1, 20, DIM // HEADS // 2), DIM // HEADS) if rotary else None
    with torch.no_grad():
        expected = block(tokens, turned, valid, first)
        with torch.autocast("cpu", torch.bfloat16):
            found = block(tokens, turned, valid, first)
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.02 * expected.norm()
    assert torch.equal(tokens, given)


def test_a_block_trains_on_tokens_in_bf16() -> None:
    block, tokens = Block(DIM, HEADS, 4.0), torch.randn(2, 9, DIM).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        block(tokens).sum().backward()
    assert tokens.grad is not None


class Doubled(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002, its name in torch
        return 2 * super().forward(input)


def test_a_block_in_bf16_calls_replaced_layers_and_hooks() -> None:
    block, tokens, seen = randomised(Block(DIM, HEADS, 4.0)), torch.randn(2, 9, DIM), []
    block.mlp[2] = randomised(Doubled(4 * DIM, DIM))
    expected = block(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        replaced = block(tokens)
        block.mlp[2] = nn.Linear(4 * DIM, DIM)
        block.attention.register_forward_hook(lambda *_: seen.append(1))
        block(tokens)
    assert (replaced - expected).norm() < 0.02 * expected.norm()
    assert len(seen) == 1


def test_a_block_in_bf16_on_a_cpu_saves_little_for_the_backward_pass() -> None:
    if not cpu_bf16._has_bf16_products():
        pytest.skip("this CPU or build of torch has no products in bf16")
    block, saved = Block(96, 3, 4.0), {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor  # kept, so that no address is used twice
        return tensor

    tokens = torch.randn(16, 12, 96, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        block(tokens)
    sizes = [one.untyped_storage().nbytes() for one in saved.values() if one.dim() == 3 and len(one) in (16, 48)]
    values = 16 * 12 * 96
    standardised, projections, attended, hidden, weights = 2 * 2, 3 * 2, 2, 4 * 2, 2 * 3 * 12 / 96
    assert sum(sizes) <= values * (standardised + projections + attended + hidden + weights) + 2 * 4 * 16 * 12


@pytest.mark.parametrize("rotary", [False, True])
def test_the_tokens_from_first_on_are_those_of_the_whole_output(rotary: bool) -> None:
    block, tokens = randomised(Block(DIM, HEADS, 4.0)), torch.randn(2, 9, DIM)
    turned = rotation(torch.rand(1, 9, DIM // HEADS // 2), DIM // HEADS) if rotary else None
    torch.testing.assert_close(block(tokens, turned, None, 4), block(tokens, turned)[:, 4:], atol=1e-5, rtol=1e-4)
