"""Build networks whose weights a checkpoint gives, without drawing initial ones."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

N = TypeVar("N", bound=nn.Module)

# What initialisation does to a parameter in place. The system gives memory only to what is written.
_INITIALISES = {
    *("uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_"),
    *("kaiming_normal_", "zero_", "zeros_", "ones_", "fill_", "constant_", "erfinv_", "mul_", "add_", "clamp_"),
}


class _NoInitialValues(TorchFunctionMode):
    """Leaves parameters as they are allocated. Other tensors, such as tables of positions, are computed as always."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        changed = args[0] if args else kwargs.get("tensor")
        if isinstance(changed, nn.Parameter) and getattr(func, "__name__", "") in _INITIALISES:
            return changed
        return func(*args, **kwargs)


def with_weights(build: Callable[[], N], weights: Mapping[str, Tensor]) -> N:
    """A network in evaluation mode with copies of the weights; raises RuntimeError if they do not fit."""
    with torch.random.fork_rng(devices=[]), _NoInitialValues():  # a plug-in may draw in its own way
        network = build()
    network.load_state_dict({name: value.clone() for name, value in weights.items()}, assign=True)
    return network.eval().requires_grad_(False)
