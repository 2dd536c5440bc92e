"""Attentive probe: a learnt query attends to the tokens of an encoder (Bardes et al. 2024, sec. 4.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa.transformer import Block, FeedForward, initialise

HEADS, HEAD_WIDTH = 16, 32  # most heads, least width of a head
EPS = 1e-5  # of the layer norms, as in the probes of V-JEPA and V-JEPA 2


def default_heads(dim: int) -> int:
    """Heads of a probe of that width."""
    return max(heads for heads in range(1, HEADS + 1) if heads == 1 or dim % (heads * HEAD_WIDTH) == 0)


class AttentiveProbe(nn.Module):
    """Self-attention blocks, cross-attention of one learnt query to the tokens, MLP, linear layer.

    blocks: self-attention blocks and the cross-attention; 1 gives the probe of V-JEPA, 4 that of V-JEPA 2. As there,
    the query is not normed, and the cross-attention has no output projection. heads: None for as many as are usual.
    """

    def __init__(self, dim: int, outputs: int, blocks: int, heads: int | None = None) -> None:
        super().__init__()
        self.heads = heads or default_heads(dim)
        self.blocks = nn.ModuleList(Block(dim, self.heads, 4.0) for _ in range(blocks - 1))
        self.query = nn.Parameter(torch.zeros(dim))
        self.norm1, self.norm2 = nn.LayerNorm(dim, EPS), nn.LayerNorm(dim, EPS)
        self.to_query, self.to_key, self.to_value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.mlp = FeedForward(dim, 4.0)
        self.classifier = nn.Linear(dim, outputs)
        initialise(self, "rescaled")
        nn.init.trunc_normal_(self.query, std=0.02)
        for block in self.blocks.children():
            for norm in (module for module in block.children() if isinstance(module, nn.LayerNorm)):
                norm.eps = EPS

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, M, D] -> [B, outputs]. valid: which tokens exist, bool [B, M], None for all."""
        for block in self.blocks:
            tokens = block(tokens, None, valid)
        return attend([self], F.layer_norm(tokens, tokens.shape[-1:], eps=EPS), valid)[0]

    def queries(self) -> Tensor:
        """The query of each head in the space of normed tokens: [H, D].

        A single query q scores a token x by q (W x + b). Computed as (q W) x, this needs no projection of tokens, which
        would be nearly all of the cost. The bias shifts all scores alike and cancels in the softmax.
        """
        query = self.to_query(self.query).unflatten(0, (self.heads, -1))  # [H, C]
        key = self.to_key.weight.unflatten(0, (self.heads, -1))  # [H, C, D]
        queries: Tensor = torch.einsum("hc,hcd->hd", query, key) * self.norm1.weight * query.shape[-1] ** -0.5
        return queries

    def logits(self, attended: Tensor) -> Tensor:
        """Normed tokens, averaged by the attention of each head [B, H, D] -> [B, outputs]."""
        attended = attended * self.norm1.weight + self.norm1.bias
        weight = self.to_value.weight.unflatten(0, (self.heads, -1))  # [H, C, D]
        values = torch.einsum("bhd,hcd->bhc", attended, weight).flatten(1) + self.to_value.bias
        pooled = self.query + values
        return self.classifier(pooled + self.mlp(self.norm2(pooled)))  # type: ignore[no-any-return]


def probe_logits(probes: Sequence[AttentiveProbe], tokens: Tensor, valid: Tensor | None = None) -> Tensor:
    """Outputs of probes of one shape: tokens [B, M, D], of which `valid` [B, M] exist -> [P, B, outputs]."""
    if probes[0].blocks:
        return torch.stack([probe(tokens, valid) for probe in probes])
    return attend(probes, F.layer_norm(tokens, tokens.shape[-1:], eps=EPS), valid)


def attend(probes: Sequence[AttentiveProbe], normed: Tensor, valid: Tensor | None = None) -> Tensor:
    """Cross-attention of all probes in one product: normed tokens [B, M, D], perhaps bf16 -> [P, B, outputs].

    valid: which tokens exist, bool [B, M], None for all.
    """
    queries = torch.cat([probe.queries() for probe in probes])  # [P H, D]
    scores = (normed @ queries.T.to(normed.dtype)).float()  # [B, M, P H]
    if valid is not None:
        scores = scores.masked_fill(~valid.unsqueeze(-1), torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=1)
    attended = (weights.transpose(1, 2).to(normed.dtype) @ normed).float()  # [B, P H, D]
    parts = attended.chunk(len(probes), dim=1)  # [B, H, D] each
    return torch.stack([probe.logits(part) for probe, part in zip(probes, parts, strict=True)])
