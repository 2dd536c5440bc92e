"""Matrix products in bf16 at the speed of fp32 on processors that would emulate them at a tenth of it."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from jepa.training.config import has_fast_bf16

_ATEN = torch.ops.aten
_PRODUCTS = {_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.baddbmm.default}


class FastProducts(TorchDispatchMode):
    """Computes products of bf16 in fp32 and rounds the result; does nothing where the processor multiplies bf16.

    Modes that are entered inside this one see the product in bf16 alone, not the copies in fp32.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in _PRODUCTS or args[0].dtype != torch.bfloat16 or has_fast_bf16("cpu"):
            return func(*args, **(kwargs or {}))
        return func(*tree_map(_in_fp32, args), **(kwargs or {})).bfloat16()


def _in_fp32(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) else value
