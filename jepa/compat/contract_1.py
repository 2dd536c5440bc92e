"""Names and signatures of the first edition of contract 1: plug-ins that use them keep working."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any

from torch import Tensor

from jepa.masking import Masks


def accept_former_names(cls: type, names: Mapping[str, str]) -> None:
    """Let a method that a class defines under a former name override the one that replaced it; names: former -> new."""
    for former, new in names.items():
        if former in vars(cls) and new not in vars(cls):
            setattr(cls, new, vars(cls)[former])


def accept_former_encoder(cls: type) -> None:
    """Accept the former methods of an encoder: their names, and indices, parts and valid tokens in place of `Masks`."""
    names = {"present": "valid", "units": "fsdp_units", "start": "load_pretrained", "place": "set_positions"}
    accept_former_names(cls, names)
    for name in ("outputs", "layers", "forward", "pool"):
        method = vars(cls).get(name)
        if method is not None and "parts" in inspect.signature(method).parameters:
            setattr(cls, name, (_pool_by_masks if name == "pool" else _encode_by_masks)(method))


def accept_indices(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method (inputs, masks) also be called as (inputs, indices [B, K], parts)."""

    @wraps(method)
    def accepting(self: Any, inputs: Any, masks: Masks | Tensor | None = None, parts: Any = ()) -> Any:
        return method(self, inputs, Masks.of_context(masks, tuple(parts)) if isinstance(masks, Tensor) else masks)

    return accepting


def accept_parts(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method (tokens, masks) also be called as (tokens, parts, valid [B, K])."""

    @wraps(method)
    def accepting(self: Any, tokens: Tensor, masks: Any = None, valid: Tensor | None = None) -> Any:
        if not isinstance(masks, Masks | None) or valid is not None:
            masks = replace(Masks.of_context(tokens[..., 0].long(), tuple(masks or ())), valid_context=valid)
        return method(self, tokens, masks)

    return accepting


def _encode_by_masks(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def by_masks(self: Any, inputs: Any, masks: Masks | Tensor | None = None, parts: Any = ()) -> Any:
        if isinstance(masks, Masks):
            return method(self, inputs, masks.context, masks.parts)
        return method(self, inputs, masks, parts)

    return by_masks


def _pool_by_masks(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def by_masks(self: Any, tokens: Tensor, masks: Any = None, valid: Tensor | None = None) -> Any:
        if isinstance(masks, Masks):
            return method(self, tokens, masks.parts, masks.valid_context)
        return method(self, tokens, masks or (), valid)

    return by_masks
