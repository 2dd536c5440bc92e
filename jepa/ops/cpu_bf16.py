"""The two residual branches of a transformer block in bf16 on a CPU: what `Block.forward` computes under autocast.

Its purpose is memory: autograd saves an output of nearly every operation. Here, the backward pass recomputes what is
cheap, norms and GELU; to pay for it, biases are part of the products (torch copies them to the output first), and
attention copies queries, keys and values once. Each branch saves its standardised input in bf16 instead of the fp32
residual stream; attention saves queries, keys, values, attention weights and what was attended; the feed-forward layers
save the hidden layer before the GELU.

Without gradients, as in the target encoder, `block_without_gradients` computes both branches and keeps nothing.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from jepa.ops.attention import attention_bias, is_short, rotate, rotate_gradient
from jepa.ops.norms import layer_norm

_LOW = torch.bfloat16


def applies(tokens: Tensor) -> bool:
    """Whether blocks with this input [B, N, D] run here: fp32 under autocast to bf16, on a CPU with oneDNN's bf16."""
    return (
        tokens.device.type == "cpu"
        and tokens.dtype == torch.float32
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == _LOW
        and is_short(tokens.shape[1], tokens.shape[1])
        and not torch.compiler.is_compiling()
        and _has_bf16_products()
    )


@cache
def _has_bf16_products() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@torch.no_grad()
def block_without_gradients(
    tokens: Tensor, block: Any, rotation: Tensor | None, valid: Tensor | None, first: int
) -> Tensor:
    """A whole block: [B, N, D] -> [B, N - first, D]."""
    attention, mlp = block.attention, block.mlp
    joined = _linear(_normed(tokens, block.norm1), attention.qkv.weight.to(_LOW), attention.qkv.bias)
    bias = None if valid is None else attention_bias(valid, _LOW)
    rotation = None if rotation is None else rotation.to(_LOW)
    attended = _attended(joined, attention.heads, first, rotation, bias)[-1]
    tokens = tokens[:, first:] + _linear(attended, attention.proj.weight.to(_LOW), attention.proj.bias)
    hidden = _linear(_normed(tokens, block.norm2), mlp[0].weight.to(_LOW), mlp[0].bias, "gelu")
    return tokens.add_(_linear(hidden, mlp[2].weight.to(_LOW), mlp[2].bias))


def attention_branch(
    tokens: Tensor, norm: nn.LayerNorm, attention: Any, rotation: Tensor | None, valid: Tensor | None, first: int
) -> Tensor:
    """Tokens + attention(norm(tokens)) of the tokens from `first` on: [B, N, D] -> [B, N - first, D]."""
    bias = None if valid is None else attention_bias(valid, _LOW)
    rotation = None if rotation is None else rotation.to(_LOW)
    qkv, proj = attention.qkv, attention.proj
    weights = (norm.weight, norm.bias, qkv.weight, qkv.bias, proj.weight, proj.bias)
    branch: Tensor = _Attention.apply(tokens, *weights, rotation, bias, (attention.heads, first, norm.eps))
    return branch


def feed_forward_branch(tokens: Tensor, norm: nn.LayerNorm, mlp: Any) -> Tensor:
    """Tokens + mlp(norm(tokens)): [B, N, D] -> [B, N, D]."""
    weights = (norm.weight, norm.bias, mlp[0].weight, mlp[0].bias, mlp[2].weight, mlp[2].bias)
    branch: Tensor = _FeedForward.apply(tokens, *weights, norm.eps)
    return branch


class _Attention(Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, *arguments: Any) -> Tensor:
        scale, shift, qkv, qkv_bias, proj, proj_bias, rotation, bias, (heads, first, eps) = arguments
        qkv_low, proj_low = qkv.to(_LOW), proj.to(_LOW)
        standard, deviation = _standardised(tokens, eps)
        joined = _linear(_affine(standard, scale, shift), qkv_low, qkv_bias)
        of_attention = _attended(joined, heads, first, rotation, bias)
        ctx.save_for_backward(standard, deviation, scale, shift, qkv_low, proj_low, *of_attention, rotation)
        ctx.heads, ctx.first, ctx.type = heads, first, qkv.dtype
        return tokens[:, first:] + _linear(of_attention[-1], proj_low, proj_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        standard, deviation, scale, shift, qkv, proj, *of_attention = ctx.saved_tensors
        query, key, value, weights, attended, rotation = of_attention
        of_attended, *of_proj = _linear_gradients(gradient.to(_LOW), attended, proj, ctx.type)
        of_heads = of_attended.unflatten(-1, (ctx.heads, -1)).transpose(1, 2).flatten(0, 1)  # [B * H, N - first, C]
        of_scores = torch._softmax_backward_data(of_heads @ value.mT, weights, -1, _LOW)
        factor = query.shape[-1] ** -0.5
        parts = [_product(of_scores, key, factor), _product(of_scores.mT, query, factor), weights.mT @ of_heads]
        parts = [part.unflatten(0, (-1, ctx.heads)) for part in parts]  # [B, H, N, C] each
        if ctx.first:
            parts[0] = F.pad(parts[0], (0, 0, ctx.first, 0))  # the first tokens are keys and values only
        if rotation is not None:
            parts[:2] = (rotate_gradient(part, rotation) for part in parts[:2])
        of_joined = torch.stack([part.transpose(1, 2) for part in parts], dim=2).flatten(2)  # [B, N, 3 D]
        of_normed, *of_qkv = _linear_gradients(of_joined, _affine(standard, scale, shift), qkv, ctx.type)
        of_tokens, *of_norm = _norm_gradients(of_normed, standard, deviation, scale, shift)
        of_tokens[:, ctx.first :] += gradient
        return of_tokens, *of_norm, *of_qkv, *of_proj, None, None, None


class _FeedForward(Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, *arguments: Any) -> Tensor:
        scale, shift, first, first_bias, second, second_bias, eps = arguments
        first_low, second_low = first.to(_LOW), second.to(_LOW)
        standard, deviation = _standardised(tokens, eps)
        normed = _affine(standard, scale, shift)
        hidden = _linear(normed, first_low, first_bias)
        ctx.save_for_backward(standard, deviation, scale, shift, first_low, second_low, hidden)
        ctx.type = first.dtype
        return tokens + _linear(F.gelu(hidden), second_low, second_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        standard, deviation, scale, shift, first, second, hidden = ctx.saved_tensors
        of_active, *of_second = _linear_gradients(gradient.to(_LOW), F.gelu(hidden), second, ctx.type)
        of_hidden = torch.ops.aten.gelu_backward(of_active, hidden)
        of_normed, *of_first = _linear_gradients(of_hidden, _affine(standard, scale, shift), first, ctx.type)
        of_tokens, *of_norm = _norm_gradients(of_normed, standard, deviation, scale, shift)
        return of_tokens.add_(gradient), *of_norm, *of_first, *of_second, None


def _attended(
    joined: Tensor, heads: int, first: int, rotation: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, ...]:
    """Queries, keys, values, weights [B * H, N, ...], and what was attended [B, N - first, D], from [B, N, 3 D]."""
    parts = joined.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # [3, B, H, N, C]
    if rotation is not None:
        parts = torch.cat((rotate(parts[:2], rotation), parts[2:]))
    query, key, value = parts.reshape(3, -1, *parts.shape[3:]).unbind()
    query = query[:, first:]
    scores = _product(query, key.mT, query.shape[-1] ** -0.5)
    if bias is not None:
        scores.unflatten(0, (-1, heads)).add_(bias)
    weights = scores.softmax(dim=-1)
    attended = (weights @ value).unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)
    return query, key, value, weights, attended


def _normed(tokens: Tensor, norm: nn.LayerNorm) -> Tensor:
    """The layer norm of tokens [B, N, D] in bf16."""
    return F.layer_norm(tokens, norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps).to(_LOW)


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor, activation: str = "none") -> Tensor:
    """`F.linear`, then an activation (`none` or `gelu`), with the bias inside the product."""
    outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias.to(_LOW), activation, [], "none")
    return outputs


def _linear_gradients(gradient: Tensor, inputs: Tensor, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Gradients of the inputs, weight and bias of `_linear` from that of its output."""
    rows = gradient.flatten(0, -2)
    return gradient @ weight, (rows.t() @ inputs.flatten(0, -2)).to(dtype), rows.sum(dim=0).to(dtype)


def _standardised(tokens: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Tokens with mean 0 and deviation 1 in bf16 [B, N, D], and the inverse of their deviation [B, N, 1]."""
    standard, deviation = layer_norm(tokens, eps)
    return standard.to(_LOW), deviation


def _affine(standard: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift.to(_LOW), standard, scale.to(_LOW))


def _norm_gradients(
    gradient: Tensor, standard: Tensor, deviation: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of the tokens, scale and shift of a layer norm from that of its output."""
    mean, one = torch.zeros_like(deviation), torch.ones_like(deviation)  # of `standard`
    of_standard, of_scale, of_shift = torch.ops.aten.native_layer_norm_backward(
        gradient, standard, standard.shape[-1:], mean, one, scale.float(), shift.float(), [True] * 3
    )
    return of_standard.to(deviation.dtype).mul_(deviation), of_scale, of_shift


def _product(one: Tensor, other: Tensor, factor: float) -> Tensor:
    """Factor * (one @ other), batches of matrices."""
    product: Tensor = torch.baddbmm(one.new_empty(1, 1, 1), one, other, beta=0, alpha=factor)
    return product
