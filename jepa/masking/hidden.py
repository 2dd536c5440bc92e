"""The tokens that a set of masks hides from the context encoder."""

import torch
from torch import Tensor

from jepa.masking.masks import Masks


def hidden_tokens(masks: Masks, tokens: int) -> tuple[Masks, Tensor]:
    """All of the `tokens` that are no context, as masks of their own, and the indices of the targets among them.

    -> masks with context [B, tokens - Kc], ascending; indices int64 [B, M, Kt]. No operation waits for the device.
    """
    context = masks.context
    hidden = torch.ones(len(context), tokens, dtype=torch.uint8, device=context.device).scatter_(1, context, 0)
    chosen = hidden.argsort(dim=1, descending=True, stable=True)[:, : tokens - context.shape[1]]
    indices = (hidden.cumsum(dim=1) - 1).gather(1, masks.target.flatten(1)).view_as(masks.target)
    return Masks.of_context(chosen), indices
