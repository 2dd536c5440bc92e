"""FSDP2: shard parameters, gradients and optimiser state over processes, and gather them block by block."""

import warnings
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from jepa.distributed import World
from jepa.model import JEPA


def sharded(build: Callable[[], JEPA], world: World, bf16: bool) -> JEPA:
    """A sharded model with the initial weights of an unsharded one.

    Only rank 0 draws the weights, on the CPU; no process ever holds all of them on its device. bf16: gather weights in
    bf16, which halves the traffic; shards and sums of gradients stay fp32. Raises the errors of `build` on rank 0, and
    PeerError elsewhere.
    """
    with world.error_barrier():
        source = dict(_named_tensors(build())) if world.is_main else {}
    with torch.device("meta"):
        model = build()
    _shard(model, world, bf16)
    model.to_empty(device=world.device)
    for name, tensor in _named_tensors(model):
        spread(source.get(name), tensor)
    for module in model.predictor.modules():
        # A network that was never gathered cannot leave gradients unshared; a stage of views alone does not run it.
        if isinstance(module, FSDPModule):
            module.unshard()
            module.reshard()
    return model


def _shard(model: JEPA, world: World, bf16: bool) -> None:
    # Outputs that are views are harmless: nothing here changes them in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = _mesh(world)
    # As without shards, autocast decides the precision of each operation, inputs included.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for unit in model.fsdp_units():
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    for network in (model.context_encoder, model.predictor, model.target_encoder):
        fully_shard(network, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for method in ("outputs", "select"):
        register_fsdp_forward_method(model.target_encoder, method)
    for method in ("contexts", "context", "encode_local"):
        register_fsdp_forward_method(model.context_encoder, method)
    register_fsdp_forward_method(model.predictor, "with_context")


def _mesh(world: World) -> DeviceMesh:
    """All processes in one row; with several machines of equally many processes, a row per machine.

    Shards then lie inside a machine, and weights are never gathered over the slower network between machines.
    """
    node_size = world.node_size or world.size
    sizes = [0] * world.size
    dist.all_gather_object(sizes, node_size, group=world.control)
    if 1 < node_size < world.size and set(sizes) == {node_size}:
        shape = (world.size // node_size, node_size)
        return init_device_mesh(world.device.type, shape, mesh_dim_names=("replicate", "shard"))
    return init_device_mesh(world.device.type, (world.size,))


@torch.no_grad()
def spread(source: Tensor | None, tensor: Tensor, on_host: dist.ProcessGroup | None = None) -> None:
    """Fill a tensor, or every process's shard of it, with rank 0's `source`; every process must call.

    on_host: group for tensors on the CPU, such as the step of AdamW, which the group of GPUs cannot send.
    """
    content = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) if source is None else source
    content = content.detach().to(tensor.device, tensor.dtype)
    if isinstance(tensor, DTensor):
        shard = distribute_tensor(content, tensor.device_mesh, tensor.placements)
        tensor.to_local().copy_(shard.to_local())
    else:
        content = content.contiguous()
        dist.broadcast(content, src=0, group=on_host if content.device.type == "cpu" else None)
        tensor.copy_(content)


def _named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name, including buffers that checkpoints omit."""
    return [*model.named_parameters(), *model.named_buffers()]
