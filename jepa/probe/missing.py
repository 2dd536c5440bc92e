"""Tokens that a sample lacks are NaN wherever features are kept: put in, found, and taken out again."""

import torch
from torch import Tensor


def nan_unless(valid: Tensor | None, tokens: Tensor) -> Tensor:
    """Tokens [B, N, ...], NaN where they do not exist by `valid`, bool [B, N], None if all do."""
    if valid is None:
        return tokens
    return tokens.masked_fill(~valid.view(*valid.shape, *(1 for _ in tokens.shape[2:])), torch.nan)


def existing(tokens: Tensor) -> Tensor | None:
    """Which tokens are not missing: [..., N, D] -> bool [..., N], None if all exist."""
    known = ~tokens[..., 0].isnan()
    return None if bool(known.all()) else known


def without_nan(tokens: Tensor) -> tuple[Tensor, Tensor | None]:
    """The same tokens with 0 for missing ones, and which exist, as `existing`."""
    valid = existing(tokens)
    return (tokens if valid is None else tokens.masked_fill(~valid.unsqueeze(-1), 0.0)), valid
