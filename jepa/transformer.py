"""The transformer of encoder and predictor: attention, feed-forward layers, blocks, initialisation."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Initialisation = Literal["xavier", "rescaled", "ijepa"]
NORM_EPS = 1e-6


def attend(query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention: [B, H, Q, C], [B, H, K, C], [B, H, K, C] -> [B, H, Q, C].

    valid: keys to attend to, bool [B, K]; None for all. If no key of a sample is valid, queries attend to all keys.

    In bf16 on CPUs, two batched products and a softmax are 2 to 7 times as fast as the fused kernel at the token counts
    of small models (`benchmarks/attention.py`); from `_FUSED_FROM` scores per head on, the fused kernel saves memory.
    """
    few = query.shape[-2] * key.shape[-2] < _FUSED_FROM
    mask = None if valid is None else _attention_bias(valid, query.dtype)
    if few and query.device.type == "cpu" and query.dtype == torch.bfloat16:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)  # [B, H, Q, K]
        if mask is not None:
            scores = scores + mask
        attended: Tensor = scores.softmax(dim=-1).to(value.dtype) @ value
        return attended
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


_FUSED_FROM = 512 * 512


def _attention_bias(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """Bias on attention scores that excludes invalid keys: bool [B, K] -> [B, 1, 1, K].

    Finite, so that a query without valid keys yields a mean, not NaN; halved, so that adding a score cannot overflow.
    """
    bias = torch.zeros(valid.shape, dtype=dtype, device=valid.device)
    return bias.masked_fill(~valid, torch.finfo(dtype).min / 2)[:, None, None]


def rotate(heads: Tensor, angles: Tensor) -> Tensor:
    """Rotate channel pairs (2i, 2i+1) by angles: [B, H, N, C], [B or 1, N, C // 2] -> [B, H, N, C].

    With one angle per channel, [B or 1, N, C], each channel of a pair uses its own, as the weights of V-JEPA 2 need.
    """
    cos, sin = angles.cos().unsqueeze(1).to(heads.dtype), angles.sin().unsqueeze(1).to(heads.dtype)
    even, odd = heads[..., 0::2], heads[..., 1::2]
    if angles.shape[-1] == heads.shape[-1]:
        first, second = (cos[..., 0::2], sin[..., 0::2]), (cos[..., 1::2], sin[..., 1::2])
    else:
        first = second = cos, sin
    return torch.stack((even * first[0] - odd * first[1], even * second[1] + odd * second[0]), dim=-1).flatten(-2)


class SelfAttention(nn.Module):
    """Multi-head self-attention; `angles` rotate queries and keys if positions are rotary."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, angles: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """Tokens [B, N, D], angles [B or 1, N, D / heads / 2], valid bool [B, N] -> [B, N, D]."""
        query, key, value = (
            self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # each [B, H, N, C]
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        return self.proj(attend(query, key, value, valid).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


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
        angles: Tensor | None = None,
        context_angles: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Queries [B, Q, D], context [B, K, D], their angles, valid context tokens [B, K] -> [B, Q, D]."""
        query = self.query(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if angles is not None and context_angles is not None:
            query, key = rotate(query, angles), rotate(key, context_angles)
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
        self.norm1, self.norm2 = nn.LayerNorm(dim, NORM_EPS), nn.LayerNorm(dim, NORM_EPS)
        self.attention = SelfAttention(dim, heads)
        self.mlp = FeedForward(dim, mlp_ratio)

    def forward(self, tokens: Tensor, angles: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D]; outputs at invalid tokens are meaningless."""
        tokens = tokens + self.attention(self.norm1(tokens), angles, valid)
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]


class CrossBlock(nn.Module):
    """Pre-norm block whose queries attend to the context only, not to each other (the predictor of CAPI, 2025)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, NORM_EPS), nn.LayerNorm(dim, NORM_EPS)
        self.norm_context = nn.LayerNorm(dim, NORM_EPS)
        self.attention = CrossAttention(dim, heads)
        self.mlp = FeedForward(dim, mlp_ratio)

    def forward(
        self,
        queries: Tensor,
        context: Tensor,
        angles: Tensor | None = None,
        context_angles: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """[B, Q, D], [B, K, D] -> [B, Q, D]."""
        attended = self.attention(self.norm1(queries), self.norm_context(context), angles, context_angles, valid)
        queries = queries + attended
        return queries + self.mlp(self.norm2(queries))  # type: ignore[no-any-return]


@torch.no_grad()
def initialise(module: nn.Module, how: Initialisation) -> None:
    """Initialise the linear layers of a network whose blocks are in `module.blocks`.

    xavier    Xavier uniform, zero biases (as the masked autoencoder of He et al. 2022): patch and position embeddings
              start at the same scale; otherwise small models learn positions only.
    rescaled  truncated normal of std .02, with the last layer of every residual branch of block i divided by sqrt(2 i),
              as I-JEPA and V-JEPA intend.
    ijepa     truncated normal of std .02 everywhere, as in the released I-JEPA code, where a later re-initialisation
              undoes the rescaling.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            if how == "xavier":
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if how == "rescaled":
        for depth, block in enumerate(module.get_submodule("blocks").children(), start=1):
            for name in ("attention.proj", "mlp.2"):
                weight = block.get_submodule(name).get_parameter("weight")
                weight.div_(math.sqrt(2.0 * depth))
