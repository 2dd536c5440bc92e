"""Memory of one training step in one process, measured by running it on tensors without data."""

import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import get_gradient_edge
from torch.nn.utils import clip_grad_norm_
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from jepa.cost.flops import networks
from jepa.data import Batch, seeded
from jepa.loss import prediction_loss, total_loss
from jepa.modality import Modality
from jepa.model import JEPA
from jepa.optim import build_optimizer
from jepa.training.config import Config, has_fast_bf16
from jepa.training.signs import collapse_signs_of
from jepa.training.stages import Stage

Kind = Literal["weights", "gradients", "optimiser", "copies", "activations"]
Device = Literal["cuda", "cpu"]


@dataclass(frozen=True)
class Usage:
    """Bytes of a process at its peak, by kind.

    weights: the three networks and their tables. copies: weights in compute precision, which autocast keeps from the
    forward to the backward pass. activations: everything else, inputs included. most_activations: peak of activations.
    """

    weights: int = 0
    gradients: int = 0
    optimiser: int = 0
    copies: int = 0
    activations: int = 0
    most_activations: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.copies + self.activations


class LiveBytes(TorchDispatchMode):
    """Counts bytes of live storages by kind; storages that were not registered are activations.

    at_peak: bytes by kind when their sum was largest. most_activations: the peak of activations alone.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: Counter[Kind] = Counter()
        self.at_peak: Counter[Kind] = Counter()
        self.most_activations = 0
        self._known: dict[int, tuple[weakref.ref[torch.UntypedStorage], Kind, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        copied = func is torch.ops.aten._to_copy.default and self._kind(args[0]) == "weights"
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf, "copies" if copied else "activations")
        if self.live.total() > self.at_peak.total():
            self.at_peak = self.live.copy()
        self.most_activations = max(self.most_activations, self.live["activations"])
        return result

    def register(self, tensor: Tensor, kind: Kind) -> None:
        """Count a tensor's storage as this kind from now on."""
        self._free(id(tensor.untyped_storage()))
        self._note(tensor, kind)

    def gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.register(parameter.grad, "gradients")

    def forget_peaks(self) -> None:
        self.at_peak, self.most_activations = self.live.copy(), self.live["activations"]

    def _kind(self, tensor: Tensor) -> Kind | None:
        known = self._known.get(id(tensor.untyped_storage()))
        return None if known is None else known[1]

    def _note(self, tensor: Tensor, kind: Kind) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return
        # The Python object of a storage lives as long as its memory.
        self._known[key] = weakref.ref(storage, lambda _: self._free(key)), kind, size
        self.live[kind] += size

    def _free(self, key: int) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self.live[known[1]] -= known[2]


class _UnknownNumbers(TorchDispatchMode):
    """Returns 1 for every number that is read from a tensor."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return 1.0 if func is torch.ops.aten._local_scalar_dense.default else func(*args, **(kwargs or {}))


class _AsOnGpu(TorchFunctionMode):
    """Makes CPU operations save the tensors for backward that their CUDA kernels save.

    Flash and memory-efficient attention save inputs, output and one number per row, but no score matrix. Under
    autocast, layer norm works on an fp32 copy.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return _flash(*args, **(kwargs or {}))
        if func is F.layer_norm and torch.is_autocast_enabled("cpu"):
            args = (args[0].float(), *args[1:])
        return func(*args, **(kwargs or {}))


def _flash(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False
) -> Tensor:
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    attended: Tensor = flash(query, key, value, dropout_p, is_causal, attn_mask=attn_mask)[0]
    return attended


def measure(config: Config[Any, Any], modality: Modality[Any], batch: Batch, device: Device) -> Usage:
    """Memory of a step in one process, for the stage of the run that needs the most.

    batch: the process's share; only its shapes matter. device: whose kernels to assume. The optimiser state exists, as
    after the first step. CUDA, its libraries and the allocator need additional memory.
    """
    model = networks(config, modality)
    model.set_activation_checkpointing(config.compute.activation_checkpointing)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        optimizer = build_optimizer(model, config.optim, config.compute.uses_bf16(device) and has_fast_bf16(device))
        step = _Step(model, optimizer, config, device)
        masks = [replace(one, context=_empty(one.context), target=_empty(one.target)) for one in batch.masks]
        fake = Batch(_empty(batch.views), masks, [], _empty(batch.local))
        return max((step.usage(fake, stage) for stage in config.timeline), key=lambda usage: usage.total)


class _Step:
    """A training step as in `train`, with its memory counted."""

    def __init__(self, model: JEPA, optimizer: torch.optim.AdamW, config: Config[Any, Any], device: Device) -> None:
        self.model, self.optimizer, self.config, self.device = model, optimizer, config, device
        self.counted = LiveBytes()
        for parameter in trained(model):
            parameter.grad = torch.empty_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for state in optimizer.state.values():
            for moment in state.values():
                self.counted.register(moment, "optimiser")
        for weight in (*model.parameters(), *model.buffers()):
            self.counted.register(weight, "weights")

    def usage(self, batch: Batch, stage: Stage) -> Usage:
        counted = self.counted
        for tensor in tree_leaves((batch.views, batch.local, [(one.context, one.target) for one in batch.masks])):
            counted.register(tensor, "activations")
        hooks = [parameter.register_post_accumulate_grad_hook(counted.gradient) for parameter in trained(self.model)]
        counted.forget_peaks()
        with counted, _AsOnGpu() if self.device == "cuda" else nullcontext():
            for part in batch.split(self.config.optim.accumulate)[:2]:  # the third repeats the second
                self._pass(part, stage)
            clip_grad_norm_(self.model.parameters(), self.config.optim.max_gradient_norm or float("inf"))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.model.update_target(0.5)
            with _UnknownNumbers():  # type: ignore[no-untyped-call]
                collapse_signs_of(self.model, self.config.evaluated_encoder, batch, bf16=False)
        for hook in hooks:
            hook.remove()
        peak = {str(kind): size for kind, size in counted.at_peak.items()}
        return Usage(**peak, most_activations=counted.most_activations)

    def _pass(self, batch: Batch, stage: Stage) -> None:
        # For a GPU, float16 replaces bf16: same size, and `attend` has no CPU special case for it.
        low = torch.float16 if self.device == "cuda" else torch.bfloat16
        with torch.autocast("cpu", low, enabled=self.config.compute.uses_bf16(self.device)):
            projects = self.config.projects(stage.weights)
            output = self.model(batch.views, batch.masks, tuple(stage.weights), batch.local, projects)
        loss = prediction_loss(output.predictions, self.config.loss, stage.weights, output.local)
        total = total_loss(loss, output, self.config.loss, self.config.model.contrast, seeded("slices"))
        # Like total.backward(), but a TorchFunctionMode stays active while blocks are recomputed.
        torch.autograd.backward(get_gradient_edge(total), torch.ones_like(total))


def _empty(tree: Any) -> Any:
    return tree_map(lambda leaf: torch.empty(leaf.shape, dtype=leaf.dtype), tree)


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
