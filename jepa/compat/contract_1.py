"""Names and signatures of the first edition of contract 1: plug-ins that use them keep working."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor

from jepa.masking import Masks


class Renamed:
    """Base of classes whose methods were renamed: either name may be defined, called and overridden; former -> new."""

    former_names: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for former, new in cls.former_names.items():
            owner = next((one for one in cls.__mro__ if former in vars(one) or new in vars(one)), None)
            if owner is not None and new not in vars(owner):
                setattr(cls, new, vars(owner)[former])
            if owner is not None and not getattr(getattr(cls, new), "__isabstractmethod__", False):
                setattr(cls, former, getattr(cls, new))


class RenamedEncoder(Renamed):
    """Base of encoders; their methods may also take indices, parts and valid tokens in place of `Masks`."""

    former_names: ClassVar[Mapping[str, str]] = {
        "present": "valid",
        "units": "fsdp_units",
        "start": "load_pretrained",
        "place": "set_positions",
    }

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("outputs", "layers", "forward", "pool"):
            method = getattr(cls, name, None)
            if method is not None and not hasattr(method, "takes_both"):
                former = "parts" in inspect.signature(method).parameters
                wrap = (_pool_by_masks if former else _accept_parts) if name == "pool" else None
                wrap = wrap or (_encode_by_masks if former else _accept_indices)
                wrapped = wrap(method)
                wrapped.takes_both = True  # type: ignore[attr-defined]
                setattr(cls, name, wrapped)


def _accept_indices(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method (inputs, masks) also be called as (inputs, keep [B, K], parts)."""

    @wraps(method)
    def accepting(self: Any, inputs: Any, masks: Any = None, parts: Any = (), keep: Tensor | None = None) -> Any:
        masks = keep if masks is None else masks
        return method(self, inputs, Masks.of_context(masks, tuple(parts)) if isinstance(masks, Tensor) else masks)

    return accepting


def _accept_parts(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method (tokens, masks) also be called as (tokens, parts, present [B, K])."""

    @wraps(method)
    def accepting(self: Any, tokens: Tensor, masks: Any = None, present: Tensor | None = None, parts: Any = ()) -> Any:
        if masks is not None and not isinstance(masks, Masks):
            masks, parts = None, masks
        if masks is None and (parts or present is not None):
            every = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
            masks = Masks.of_context(every, tuple(parts), present)
        return method(self, tokens, masks)

    return accepting


def _encode_by_masks(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def by_masks(self: Any, inputs: Any, masks: Any = None, parts: Any = (), keep: Tensor | None = None) -> Any:
        if isinstance(masks, Masks):
            return method(self, inputs, masks.context, masks.parts)
        return method(self, inputs, keep if masks is None else masks, parts)

    return by_masks


def _pool_by_masks(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def by_masks(self: Any, tokens: Tensor, masks: Any = None, present: Tensor | None = None, parts: Any = ()) -> Any:
        if isinstance(masks, Masks):
            return method(self, tokens, masks.parts, masks.valid_context)
        return method(self, tokens, masks or parts, present)

    return by_masks
