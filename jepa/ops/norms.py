"""Layer norm without learned weights."""

import torch
from torch import Tensor


def standardised(tokens: Tensor) -> Tensor:
    """Tokens with mean 0 and deviation 1 [..., D], in fp32 or better."""
    return layer_norm(tokens.to(torch.promote_types(tokens.dtype, torch.float32)), 1e-5)[0]


def layer_norm(tokens: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Tokens with mean 0 and deviation 1 [..., D], and the inverse of their deviation [..., 1]."""
    scale = shift = None
    if tokens.device.type == "cpu":  # twice as fast as without weights, and bit for bit the same
        scale, shift = tokens.new_ones(tokens.shape[-1]), tokens.new_zeros(tokens.shape[-1])
    normed, _, inverse = torch.native_layer_norm(tokens, tokens.shape[-1:], scale, shift, eps)
    return normed, inverse
