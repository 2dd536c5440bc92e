"""FLOPs, activation memory and time of steps that take turns in one process."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.steps.cases import Method, Precision

Clock = Literal["wall", "cpu"]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2")
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_TURN = 0.25  # seconds that a turn takes at least


@dataclass(frozen=True)
class Cost:
    """What a step costs on any machine. A multiply-add counts as two FLOPs.

    activation_bytes: storages that the forward pass keeps for the backward pass, each once, without parameters and
    without the copies of parameters in bf16 that autocast keeps. operations: calls of torch's kernels. waits: those for
    whose result a host would wait for its GPU.
    """

    flops: int
    activation_bytes: int
    operations: int
    waits: int


def _flash(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _flash_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


def _linear(inputs: Any, weight: Any, *_: Any, **__: Any) -> int:
    return int(2 * math.prod(inputs) * weight[0])


# Operations of CPUs, which torch does not count.
_FORMULAS = {_FLASH: _flash, _FLASH_BACKWARD: _flash_backward, torch.ops.mkldnn._linear_pointwise: _linear}


class _Operations(TorchDispatchMode):
    """Counts operations, and remembers the copies of parameters."""

    def __init__(self, parameters: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count, self.waits, self.parameters = 0, 0, parameters
        self.copies: list[Tensor] = []  # kept, so that no other tensor takes their memory

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count += 1
        self.waits += func.overloadpacket.__name__ in _WAITING
        if func is torch.ops.aten._to_copy.default and args[0].untyped_storage().data_ptr() in self.parameters:
            self.copies.append(result)
        return result


def cost(method: Method) -> Cost:
    """Count what one step costs."""
    parameters = {
        tensor.untyped_storage().data_ptr()
        for module in method.modules()
        for tensor in (*module.parameters(), *module.buffers())
    }
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    operations = _Operations(parameters)
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    with operations, counter, saved_tensors_hooks(note, lambda tensor: tensor):
        method.step()
    weights = parameters | {copy.untyped_storage().data_ptr() for copy in operations.copies}
    kept = sum(size for place, size in saved.items() if place not in weights)
    return Cost(int(counter.get_total_flops()), kept, operations.count, operations.waits)


_GROUPS = {  # by words in the names of torch's operations; the first match counts
    "attention in one kernel": ("flash_attention", "efficient_attention"),
    "matrix products": (".mm.", "addmm", "bmm", "linear", "matmul", "convolution"),
    "GELU": ("gelu",),
    "softmax": ("softmax",),
    "layer norms": ("layer_norm",),
    "optimiser and moving average": ("fused_adam", "foreach", "lerp", "linalg", "norm"),
    "copies and casts": ("copy", "clone", "cat", "stack", "repeat"),
    "selection of tokens": ("gather", "scatter", "index", "select_backward", "slice_backward"),
}


class _Times(TorchDispatchMode):
    """Nanoseconds inside torch's operations by name. torch's profiler makes some of them several times slower."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.spent: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        started = time.perf_counter_ns()
        result = func(*args, **(kwargs or {}))
        self.spent[str(func)] += time.perf_counter_ns() - started
        return result


def breakdown(method: Method) -> dict[str, float]:
    """Shares of the time inside torch's operations by kind of work, which sum to 1."""
    with _Times() as times:
        method.step()
    kinds: Counter[str] = Counter()
    for name, spent in times.spent.items():
        kind = next((kind for kind, words in _GROUPS.items() if any(word in name for word in words)), "other")
        kinds[kind] += spent
    return {kind: spent / kinds.total() for kind, spent in kinds.most_common()}


class MatrixProduct:
    """A product of two square matrices, whose rate is the machine's own."""

    def __init__(self, precision: Precision, device: torch.device | None = None, side: int = 2048) -> None:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.flops = 2 * side**3
        self.factors = torch.randn(2, side, side).to(device, dtype)

    def step(self) -> object:
        """One product."""
        return self.factors[0] @ self.factors[1]

    def modules(self) -> Sequence[nn.Module]:
        """None."""
        return []


def take_turns(methods: Mapping[str, Method], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds a step of every method in every round; the order rotates from round to round."""
    steps = {name: _steps(method) for name, method in methods.items()}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    names, now = list(methods), CLOCKS[clock]
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            started = now()
            for _ in range(steps[name]):
                methods[name].step()
            seconds[name].append((now() - started) / steps[name])
    return seconds


def _steps(method: Method) -> int:
    """Steps in a turn, after a warm-up."""
    method.step()
    started = time.perf_counter()
    method.step()
    return max(1, round(_TURN / (time.perf_counter() - started)))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and the range in brackets."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
