"""Faster attention for the transformer blocks of open_clip, and how the towers run these blocks."""

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from jepa.encoder import run_block
from jepa.transformer import attend


class FastAttention(nn.Module):
    """Self-attention of `nn.MultiheadAttention`, with the same parameters under the same names.

    torch's module always uses the fused kernel, which is slow in bf16 on CPUs (see `jepa.transformer.attend`), and
    needs a copy of the mask per head.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(
        self, tokens: Tensor, _key: Tensor, _value: Tensor, need_weights: bool, attn_mask: Tensor | None
    ) -> tuple[Tensor, None]:
        """[B, K, D], additive mask [B or 1, 1, K, K] -> [B, K, D]; keys and values are the tokens."""
        projected = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, H, K, C]
        attended = attend(query, key, value) if attn_mask is None else attend_masked(query, key, value, attn_mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


def attend_masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """`attend` with an additive mask."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + mask
        attended: Tensor = scores.softmax(dim=-1).to(value.dtype) @ value
        return attended
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask.to(query.dtype))


def run_blocks(blocks: nn.ModuleList, checkpointing: bool, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Run open_clip's blocks: [B, K, D] -> [B, K, D]; `checkpointing`: see `run_block`."""
    for block in blocks:
        arguments = (tokens, None, None, mask) if isinstance(block, ResidualAttentionBlock) else (tokens, mask)
        tokens = run_block(block, checkpointing, *arguments)
    return tokens


def replace_attention(blocks: nn.ModuleList) -> None:
    for block in blocks:
        if isinstance(block, ResidualAttentionBlock):
            block.attn = FastAttention(block.attn)
