"""Muon for the matrices of transformer blocks (Jordan et al. 2024, "Muon: an optimizer for hidden layers").

A step moves a matrix along its momentum, made nearly orthogonal by a Newton-Schulz iteration. As in "Muon is scalable
for LLM training" (Liu et al. 2025, arXiv 2502.16982), the rate is multiplied by 0.2 * sqrt(longer side): the root mean
square of an update is then that of AdamW, so AdamW's learning rate and weight decay carry over.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from jepa.distributed import local

MOMENTUM = 0.95
_STEPS = 5
_COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of x, x^3 and x^5
_EPS = 1e-7
_MOST = 2**24  # numbers that are orthogonalised at once, or one matrix in each process; this bounds the memory
_RENAMED = hasattr(dist, "all_gather_single")  # by torch 2.14, which warns of the former name
_ALL_GATHER = dist.all_gather_single if _RENAMED else dist.all_gather_into_tensor


def block_matrices(blocks: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The trained weights of all linear and attention layers inside `blocks`, each a matrix."""
    layers = (layer for block in blocks for layer in block.modules())
    weights = (one for layer in layers if _is_linear(layer) for one in layer.parameters(recurse=False))
    return list(dict.fromkeys(one for one in weights if one.ndim == 2 and one.requires_grad))


def _is_linear(layer: nn.Module) -> bool:
    """Also attention that keeps the weights of queries, keys and values itself, as `nn.MultiheadAttention` does."""
    return isinstance(layer, nn.Linear) or hasattr(layer, "in_proj_weight")


class Muon(AdamW):
    """Muon for groups of matrices whose `orthogonal` is true, AdamW for the other groups.

    Joined weights, such as those of queries, keys and values, count as one matrix. The processes divide whole matrices
    among them and exchange the updates, as the iteration takes about 4 * width / (tokens of the process) of the
    operations of a forward and backward pass. Sharded matrices (FSDP) are gathered in the precision of the iteration,
    and every process computes the whole update. bf16: iterate in bf16, which must be the same in all processes; see
    `bf16_everywhere`. processes: with equal weights and gradients, those of torch's process group.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, bf16: bool = False, processes: int = 1, **settings: Any
    ) -> None:
        self.bf16, self.processes = bf16, processes
        super().__init__(groups, **settings)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient; none if the device says that a gradient is not finite."""
        every = self.param_groups
        for group in every:
            if group["orthogonal"]:
                self._update(group)
        self.param_groups = [group for group in every if not group["orthogonal"]]
        try:
            super().step()
        finally:
            self.param_groups = every

    def __setstate__(self, state: dict[str, Any]) -> None:
        Optimizer.__setstate__(self, state)  # AdamW's expects its own state of every parameter

    def _update(self, group: dict[str, Any]) -> None:
        device = group["params"][0].device
        # As in AdamW, the device knows whether the gradient is finite, and the host need not: 1 to update, 0 to stay.
        finite = 1 - getattr(self, "found_inf", torch.zeros((), device=device))
        weight, rate = (1 - MOMENTUM) * finite, group["lr"] * finite
        for parameters in _of_equal_shape(group["params"], self.processes):
            shards = [local(parameter) for parameter in parameters]
            momenta = [local(self._momentum(parameter)) for parameter in parameters]
            update = torch.stack([local(one.grad) for one in parameters if one.grad is not None])
            update.masked_fill_(finite == 0, 0)
            views = list(update.unbind())
            torch._foreach_lerp_(momenta, views, [weight] * len(views))
            torch._foreach_lerp_(views, momenta, MOMENTUM)  # Nesterov's
            update = self._orthogonal(update.to(torch.bfloat16) if self.bf16 else update, parameters[0])
            update = update.float().mul_(-0.2 * math.sqrt(max(parameters[0].shape)) * rate)
            torch._foreach_mul_(shards, 1 - rate * group["weight_decay"])
            torch._foreach_add_(shards, list(update.unbind()))

    def _orthogonal(self, shards: Tensor, parameter: nn.Parameter) -> Tensor:
        """`orthogonalised` of matrices; if they are sharded as the parameter is, the shards of the result."""
        if hasattr(parameter, "to_local"):
            return _of_shards(shards, parameter)
        if self.processes == 1:
            return orthogonalised(shards)
        share = math.ceil(len(shards) / self.processes)
        own = shards.new_zeros(share, *shards.shape[1:])  # zeros, which stay zeros, where there are too few
        mine = shards[share * dist.get_rank() :][:share]
        own[: len(mine)] = orthogonalised(mine) if len(mine) else mine
        every = shards.new_empty(self.processes * share, *shards.shape[1:])
        _ALL_GATHER(every, own)
        return every[: len(shards)]

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum_buffer"]
        return momentum


def empty_state(group: dict[str, Any], parameter: Tensor) -> dict[str, Tensor]:
    """State of a parameter in a group of Muon or AdamW, before its first step."""
    zeros = torch.zeros_like(parameter).detach()
    if group["orthogonal"]:
        return {"momentum_buffer": zeros}
    return {"step": torch.zeros(()), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}


def orthogonalised(matrices: Tensor) -> Tensor:
    """U V^T of matrices U S V^T, nearly: singular values become 0.7 to 1.2. [N, R, C] -> [N, R, C]."""
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT).mT
    matrices = matrices / torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True).clamp(min=_EPS)
    one, three, five = _COEFFICIENTS
    for _ in range(_STEPS):
        squares = matrices @ matrices.mT
        powers = torch.baddbmm(squares, squares, squares, beta=three, alpha=five)
        matrices = torch.baddbmm(matrices, powers, matrices, beta=one)
    return matrices


def _of_shards(shards: Tensor, parameter: nn.Parameter) -> Tensor:
    """Shards of `orthogonalised` matrices from the shards of matrices, which lie as those of the parameter."""
    from torch.distributed.tensor import DTensor, Replicate, Shard  # slow to import

    assert isinstance(parameter, DTensor)
    mesh = parameter.device_mesh
    placements = [Shard(one.dim + 1) if isinstance(one, Shard) else one for one in parameter.placements]
    shape = torch.Size((len(shards), *parameter.shape))
    stride = (shape[1] * shape[2], shape[2], 1)
    spread = DTensor.from_local(shards, mesh, placements, run_check=False, shape=shape, stride=stride)
    found = orthogonalised(spread.full_tensor()).contiguous()
    copies = DTensor.from_local(found, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return copies.redistribute(placements=placements).to_local()


def _of_equal_shape(parameters: Sequence[nn.Parameter], processes: int) -> Iterator[list[nn.Parameter]]:
    """The parameters that have a gradient, in batches of equal shape; matrices that are not sharded divide well."""
    by_shape: dict[torch.Size, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_shape.setdefault(parameter.shape, []).append(parameter)
    for shape, equal in by_shape.items():
        divided = 1 if hasattr(equal[0], "to_local") else processes
        size = max(1, _MOST // shape.numel() // divided) * divided
        yield from (equal[first : first + size] for first in range(0, len(equal), size))
