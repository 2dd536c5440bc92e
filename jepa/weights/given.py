"""Build networks whose weights a checkpoint gives, without drawing initial ones."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from jepa.checkpoint import CheckpointError

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


class MismatchError(CheckpointError, RuntimeError):
    """Weights do not fit the networks of their config."""


def with_weights(build: Callable[[], N], weights: Mapping[str, Tensor]) -> N:
    """A network in evaluation mode with copies of the weights, in fp32; raises MismatchError if they do not fit."""
    with torch.random.fork_rng(devices=[]), _NoInitialValues():  # a plug-in may draw in its own way
        network = build()
    if flaw := _flaw({name: value.shape for name, value in network.state_dict().items()}, weights):
        raise MismatchError(f"the weights do not fit the networks of their config: {flaw}")
    network.load_state_dict({name: _copy(value) for name, value in weights.items()}, assign=True)
    return network.eval().requires_grad_(False)


def check_networks(networks: Callable[[], nn.Module], weights: Mapping[str, Tensor], unknown: str = "") -> None:
    """Raise MismatchError if some network is there in part, or does not fit.

    unknown: the layer whose shape only code would tell that is not imported. A whole network may be missing.
    """
    state = _state_without_values(networks)
    given = {name.partition(".")[0] for name in weights}
    shapes = {name: value.shape for name, value in state.items() if name.partition(".")[0] in given}
    if unknown:
        shapes |= {name: value.shape for name, value in weights.items() if name.startswith(unknown)}
    if flaw := _flaw(shapes, weights):
        raise MismatchError(f"the weights do not fit the networks of their config: {flaw}")


def _state_without_values(networks: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """What networks would store, for the names and shapes; on the meta device, as large ones take gigabytes."""
    with torch.random.fork_rng(devices=[]), _NoInitialValues():
        try:
            with torch.device("meta"):
                return networks().state_dict()
        except (RuntimeError, TypeError):  # a plug-in may read a value while it builds, and meta tensors have none
            pass
        return networks().state_dict()  # an error of another cause comes again


def _flaw(shapes: Mapping[str, torch.Size], weights: Mapping[str, Tensor]) -> str:
    """The first weight that is missing, has another shape, or has no place; "" if all fit."""
    if missing := [name for name in shapes if name not in weights]:
        network = missing[0].partition(".")[0]
        if not any(name.startswith(f"{network}.") for name in weights):
            return f"they have no {network}"
        return f"{missing[0]} is missing ({len(missing)} of {len(shapes)} are)"
    if wrong := [name for name, shape in shapes.items() if weights[name].shape != shape]:
        return f"{wrong[0]} has shape {list(weights[wrong[0]].shape)}, expected {list(shapes[wrong[0]])}"
    strange = [name for name in weights if name not in shapes]
    return f"{strange[0]} has no place in them" if strange else ""


def _copy(value: Tensor) -> Tensor:
    return value.to(torch.float32, copy=True) if value.is_floating_point() else value.clone()
