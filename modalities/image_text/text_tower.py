"""The text tower of open_clip, extended to encode parts of captions."""

import torch
import torch.nn.functional as F
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from modalities.image_text.attention import replace_attention, run_blocks


class TextTower(nn.Module):
    """A text tower of open_clip: captions, or some of their tokens -> one vector and tokens.

    length: tokens per caption, with padding; width: of the tokens; end: id of the end token, None if only padding
    marks the end; mask_padding: do not attend to padding, for towers that are trained from scratch and not causal.
    Pretrained towers attend to it if they do so in open_clip.
    """

    tower: TextTransformer

    def __init__(self, tower: TextTransformer, end: int | None, mask_padding: bool) -> None:
        super().__init__()
        self.tower, self.end, self.activation_checkpointing = tower, end, False
        self.length, self.width = tower.context_length, tower.width
        self.mask_padding = mask_padding and tower.attn_mask is None
        replace_attention(tower.transformer.resblocks)

    def valid(self, ids: Tensor) -> Tensor:
        """Which tokens are not padding; start and end tokens count: [B, L] -> bool [B, L]."""
        if self.end is None:
            return ids.ne(self.tower.pad_id)
        ends = ids.eq(self.end).long()
        return (ends.cumsum(dim=1) - ends).eq(0)

    def forward(self, ids: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, L], ascending indices of kept tokens [B, K] or None -> pooled [B, E], tokens [B, K or L, width].

        Dropped tokens are neither keys nor queries; the others keep their positions. `pooled` equals open_clip's
        `encode_text` without normalisation; if the token that it is taken from is dropped, the last kept token before
        it is used. Tokens are taken after the final norm.
        """
        indices = torch.arange(ids.shape[1], device=ids.device).expand_as(ids) if keep is None else keep
        tokens = self.tower.token_embedding(ids.gather(1, indices))
        indices, tokens = self._with_class_token(ids, indices, tokens)
        tokens = tokens + F.embedding(indices, self.tower.positional_embedding)
        mask = self._mask(ids, indices, tokens)
        checkpointing = self.activation_checkpointing and self.training
        tokens = self.tower.ln_final(run_blocks(self.tower.transformer.resblocks, checkpointing, tokens, mask))
        pooled_at = ((indices <= self._pooled_index(ids)).sum(dim=1) - 1).clamp(min=0)
        pooled = self._projected(tokens[torch.arange(len(ids), device=ids.device), pooled_at])
        return pooled, tokens if self.tower.cls_emb is None else tokens[:, :-1]

    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks, in order."""
        return list(self.tower.transformer.resblocks)

    def _with_class_token(self, ids: Tensor, indices: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Append CoCa's class token, which follows the padding and is always kept."""
        if self.tower.cls_emb is None:
            return indices, tokens
        last = indices.new_full((len(ids), 1), ids.shape[1])
        return torch.cat([indices, last], dim=1), torch.cat([tokens, self.tower.cls_emb.expand(len(ids), 1, -1)], dim=1)

    def _mask(self, ids: Tensor, indices: Tensor, tokens: Tensor) -> Tensor | None:
        """Additive attention mask [B or 1, 1, K, K], -inf where a query must not attend; None if it is zero."""
        count = indices.shape[1]
        allowed = torch.ones(1, 1, count, count, dtype=torch.bool, device=ids.device)
        if self.tower.attn_mask is not None:
            allowed = allowed.tril()  # kept tokens are in ascending order
        if (keys := self._visible(ids)) is not None:
            allowed = allowed & keys.gather(1, indices)[:, None, None]  # [B, 1, K, K]
            isolated = ~allowed.any(dim=-1, keepdim=True)  # no key at all, impossible for softmax: it attends to itself
            allowed = allowed | isolated & torch.eye(count, dtype=torch.bool, device=ids.device)
        elif self.tower.attn_mask is None:
            return None
        return torch.zeros_like(allowed, dtype=tokens.dtype).masked_fill(~allowed, float("-inf"))

    def _visible(self, ids: Tensor) -> Tensor | None:
        """Which tokens may be keys, apart from causality: bool [B, L, + 1 with a class token], or None for all."""
        if self.tower.cls_emb is not None:
            # Shifted by one, as CoCa was trained; open_clip calls it the legacy mask.
            return F.pad(ids != self.tower.pad_id, (1, 0), value=True)
        return self.valid(ids) if self.mask_padding else None

    def _pooled_index(self, ids: Tensor) -> Tensor:
        """Index in the caption of the token that is pooled: [B, L] -> [B, 1]."""
        kind = "class" if self.tower.cls_emb is not None else self.tower.pool_type
        if kind == "argmax":
            return ids.argmax(dim=1, keepdim=True)
        if kind == "eos":
            return ids.eq(self.tower.eos_id).int().argmax(dim=1, keepdim=True)
        if kind == "last" and self.mask_padding:
            return self.valid(ids).sum(dim=1, keepdim=True) - 1
        return ids.new_full((len(ids), 1), {"first": 0, "last": ids.shape[1] - 1, "class": ids.shape[1]}[kind])

    def _projected(self, pooled: Tensor) -> Tensor:
        projection = self.tower.text_projection
        if isinstance(projection, nn.Linear):
            return projection(pooled)  # type: ignore[no-any-return]
        return pooled if projection is None else torch.matmul(pooled, projection)
