"""Scaled dot-product attention, and rotary positions of its queries and keys."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention: [B, H, Q, C], [B, H, K, C], [B, H, K, C] -> [B, H, Q, C].

    valid: keys to attend to, bool [B, K]; None for all. If no key of a sample is valid, queries attend to all keys.

    In bf16 on CPUs, two batched products and a softmax are 2 to 7 times as fast as the fused kernel at the token counts
    of small models (`benchmarks/attention.py`); from `_FUSED_FROM` scores per head on, the fused kernel saves memory.
    """
    few = is_short(query.shape[-2], key.shape[-2])
    mask = None if valid is None else attention_bias(valid, query.dtype)
    if few and query.device.type == "cpu" and query.dtype == torch.bfloat16:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)  # [B, H, Q, K]
        if mask is not None:
            scores = scores + mask
        attended: Tensor = scores.softmax(dim=-1).to(value.dtype) @ value
        return attended
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


_FUSED_FROM = 512 * 512


def is_short(queries: int, keys: int) -> bool:
    """Whether the scores of a head are few enough to be stored."""
    return queries * keys < _FUSED_FROM


def attention_bias(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """Bias on attention scores that excludes invalid keys: bool [B, K] -> [B, 1, 1, K].

    0 for samples without valid keys: fused kernels return wrong gradients if all scores are this low. Halved, so that
    adding a score cannot overflow.
    """
    bias = torch.zeros(valid.shape, dtype=dtype, device=valid.device)
    excluded = ~valid & valid.any(dim=1, keepdim=True)
    return bias.masked_fill(excluded, torch.finfo(dtype).min / 2)[:, None, None]


def rotation(angles: Tensor, channels: int) -> Tensor:
    """Cosine and signed sine by which `rotate` turns channel pairs: [B or 1, N, C // 2] -> [2, B or 1, 1, N, C].

    With one angle per channel, [B or 1, N, C], each channel of a pair uses its own, as the weights of V-JEPA 2 need.
    """
    if angles.shape[-1] != channels:
        angles = angles.repeat_interleave(2, dim=-1)
    signs = angles.new_tensor([-1.0, 1.0]).repeat(channels // 2)
    return torch.stack((angles.cos(), angles.sin() * signs)).unsqueeze(2).to(compute_dtype(angles))


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The type in which matrix products with this tensor are computed: that of autocast where it is enabled."""
    return torch.get_autocast_dtype(tensor.device.type) if under_autocast(tensor) else tensor.dtype


def under_autocast(tensor: Tensor) -> bool:
    """Whether autocast is enabled on the tensor's device; never on `meta`."""
    return torch.amp.is_autocast_available(tensor.device.type) and torch.is_autocast_enabled(tensor.device.type)


def rotate(heads: Tensor, rotation: Tensor) -> Tensor:
    """Rotate channel pairs (2i, 2i+1): [B, H, N, C], `rotation` [2, B or 1, 1, N, C] -> [B, H, N, C]."""
    cos, sin = rotation
    turned: Tensor = heads * cos + _swapped(heads) * sin
    return turned


def rotate_gradient(gradient: Tensor, rotation: Tensor) -> Tensor:
    """Gradient of the `heads` of `rotate` from that of its result."""
    cos, sin = rotation
    of_heads: Tensor = gradient * cos + _swapped(gradient * sin)
    return of_heads


def _swapped(heads: Tensor) -> Tensor:
    """The channels of every pair exchanged."""
    swapped: Tensor = heads.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return swapped
