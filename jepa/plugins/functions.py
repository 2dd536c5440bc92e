"""Custom functions `package.module:function` that compute targets."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from jepa.config import ConfigError
from jepa.config.imports import describe_error
from jepa.encoder import TokenEncoder
from jepa.modality import Modality

TargetFunction = Callable[[Any, TokenEncoder], Tensor]


@torch.no_grad()
def checked_width(kind: str, function: TargetFunction, modality: Modality[Any], encoder: TokenEncoder) -> int:
    """Values per token that a function returns for an example view; raises ConfigError if it does not fit."""
    is_meta, tokens = encoder.device.type == "meta", len(modality.positions)
    view = tree_map(lambda leaf: leaf.unsqueeze(0), modality.example_view())
    given = tree_map(lambda leaf: torch.empty_like(leaf, device="meta") if is_meta else leaf.clone(), view)
    try:
        values = function(given, encoder)
    except Exception as error:  # custom code may raise anything
        hint = "; a dry run and parallel=fsdp call it on tensors without values" if is_meta else ""
        raise ConfigError(f"stages: {kind} fails on a view: {describe_error(error)}{hint}") from error
    is_floats = isinstance(values, Tensor) and values.is_floating_point()
    if not is_floats or values.dim() != 3 or values.shape[:2] != (1, tokens):
        form = f"{values.dtype} {list(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
        expected = f"a tensor of floats [1, {tokens}, V], values for every token"
        raise ConfigError(f"stages: {kind} returns {form} for a batch of one; expected {expected}")
    if not is_meta and not all(
        torch.equal(before.nan_to_num(), after.nan_to_num())
        for before, after in zip(tree_leaves(view), tree_leaves(given), strict=True)
    ):
        raise ConfigError(f"stages: {kind} changes its inputs, which the encoder needs afterwards; work on a copy")
    return int(values.shape[2])
