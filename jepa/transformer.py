"""The transformer of encoder and predictor: attention, feed-forward layers, blocks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa.ops import cpu_bf16
from jepa.ops.attention import attend as attend, rotate as rotate, rotation as rotation, under_autocast
from jepa.ops.initial import Initialisation as Initialisation, initialise as initialise

NORM_EPS = 1e-6


class LayerNorm(nn.LayerNorm):
    """Layer norm of fp32 tokens also where FSDP gathers its weights in bf16."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, its name in torch
        """[..., D] -> [..., D]."""
        dtype = torch.promote_types(self.weight.dtype, input.dtype)
        return F.layer_norm(input, self.normalized_shape, self.weight.to(dtype), self.bias.to(dtype), self.eps)


def in_stream(tokens: Tensor) -> Tensor:
    """Tokens in the type in which blocks are summed: fp32 under autocast, as in I-JEPA and V-JEPA."""
    return tokens.float() if under_autocast(tokens) else tokens


class SelfAttention(nn.Module):
    """Multi-head self-attention; `rotation` turns queries and keys if positions are rotary."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, tokens: Tensor, rotation: Tensor | None = None, valid: Tensor | None = None, first: int = 0
    ) -> Tensor:
        """Tokens [B, N, D], `rotation` of their positions, valid bool [B, N] -> [B, N - first, D], from `first` on."""
        query, key, value = (
            self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # each [B, H, N, C]
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        return self.proj(attend(query[:, :, first:], key, value, valid).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Multi-head attention of queries to another token set."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        queries: Tensor,
        context: Tensor,
        rotation: Tensor | None = None,
        context_rotation: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Queries [B, Q, D], context [B, K, D], the `rotation` of each, valid context tokens [B, K] -> [B, Q, D]."""
        query = self.query(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if rotation is not None and context_rotation is not None:
            query, key = rotate(query, rotation), rotate(key, context_rotation)
        return self.proj(attend(query, key, value, valid).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between: [..., D] -> [..., D]."""

    def __init__(self, dim: int, mlp_ratio: float) -> None:
        hidden = int(dim * mlp_ratio)
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class Block(nn.Module):
    """Pre-norm transformer block (Dosovitskiy et al. 2021, eq. 2-3)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm(dim, NORM_EPS), LayerNorm(dim, NORM_EPS)
        self.attention = SelfAttention(dim, heads)
        self.mlp = FeedForward(dim, mlp_ratio)

    def forward(
        self, tokens: Tensor, rotation: Tensor | None = None, valid: Tensor | None = None, first: int = 0
    ) -> Tensor:
        """[B, N, D] -> [B, N - first, D], the tokens from `first` on; outputs at invalid tokens are meaningless."""
        if cpu_bf16.applies(tokens) and self._is_plain():  # the same arithmetic with fewer saved tensors
            if not torch.is_grad_enabled():
                return cpu_bf16.block_without_gradients(tokens, self, rotation, valid, first)
            tokens = cpu_bf16.attention_branch(tokens, self.norm1, self.attention, rotation, valid, first)
            return cpu_bf16.feed_forward_branch(tokens, self.norm2, self.mlp)
        tokens = tokens[:, first:] + self.attention(self.norm1(tokens), rotation, valid, first)
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]

    def _is_plain(self) -> bool:
        """Whether no layer was replaced, such as by an adapter, or has forward hooks."""
        plain = (LayerNorm, SelfAttention, FeedForward, nn.Linear, nn.GELU)
        layers = (layer for child in self.children() for layer in child.modules())
        return all(type(one) in plain and not one._forward_hooks and not one._forward_pre_hooks for one in layers)


class CrossBlock(nn.Module):
    """Pre-norm block whose queries attend to the context only, not to each other (the predictor of CAPI, 2025)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm(dim, NORM_EPS), LayerNorm(dim, NORM_EPS)
        self.norm_context = LayerNorm(dim, NORM_EPS)
        self.attention = CrossAttention(dim, heads)
        self.mlp = FeedForward(dim, mlp_ratio)

    def forward(
        self,
        queries: Tensor,
        context: Tensor,
        rotation: Tensor | None = None,
        context_rotation: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """[B, Q, D], [B, K, D] -> [B, Q, D]."""
        context = self.norm_context(context)
        queries = queries + self.attention(self.norm1(queries), context, rotation, context_rotation, valid)
        return queries + self.mlp(self.norm2(queries))  # type: ignore[no-any-return]
