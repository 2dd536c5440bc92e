"""Names and signatures of the first edition of contract 1: plug-ins that use them keep working."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor

from jepa.masking import Masks


class Renamed:
    """Base of classes whose methods were renamed; subclasses and callers may use either name."""

    former_names: ClassVar[Mapping[str, str]] = {}  # former name -> new name

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for former, new in cls.former_names.items():
            owner = next((one for one in cls.__mro__ if former in vars(one) or new in vars(one)), None)
            if owner is not None and new not in vars(owner):
                setattr(cls, new, vars(owner)[former])
            if owner is not None and not getattr(getattr(cls, new), "__isabstractmethod__", False):
                setattr(cls, former, getattr(cls, new))


class RenamedEncoder(Renamed):
    """Base of encoders; their methods may also take indices, parts and valid tokens instead of `Masks`."""

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
                wrapped = (_pooling if name == "pool" else _encoding)(method, former)
                wrapped.takes_both = True  # type: ignore[attr-defined]
                setattr(cls, name, wrapped)


def _encoding(method: Callable[..., Any], former: bool) -> Callable[..., Any]:
    """Let a method be called as (inputs, masks) and as (inputs, keep [B, K], parts); former: it takes the latter."""

    @wraps(method)
    def both(self: Any, inputs: Any, masks: Any = None, parts: Any = (), keep: Tensor | None = None) -> Any:
        masks = keep if masks is None else masks
        if former and isinstance(masks, Masks):
            return method(self, inputs, masks.context, masks.parts)
        if former:
            return method(self, inputs, masks, parts)
        return method(self, inputs, Masks.of_context(masks, tuple(parts)) if isinstance(masks, Tensor) else masks)

    return both


def _pooling(method: Callable[..., Any], former: bool) -> Callable[..., Any]:
    """Let a method be called as (tokens, masks) and as (tokens, parts, present [B, K]); former: it takes the latter."""

    @wraps(method)
    def both(self: Any, tokens: Tensor, masks: Any = None, present: Tensor | None = None, parts: Any = ()) -> Any:
        given = masks if isinstance(masks, Masks) else None
        parts = parts if given is not None or masks is None else masks
        if former:
            return method(self, tokens, *((parts, present) if given is None else (given.parts, given.valid_context)))
        if given is None and (parts or present is not None):
            every = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
            given = Masks.of_context(every, tuple(parts), present)
        return method(self, tokens, given)

    return both
