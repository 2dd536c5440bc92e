"""A copy of a run's state in host memory, which a thread can write while training changes the original."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


def host_copy(tree: Any, device: torch.device) -> Any:
    """A nested structure with copies of its tensors in host memory, pinned if they come from a GPU."""
    pinned = device.type == "cuda"

    def copied(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        copy = torch.empty_like(leaf, device="cpu", pin_memory=pinned)
        return copy.copy_(leaf.detach(), non_blocking=pinned)

    copies = tree_map(copied, tree)
    if pinned:
        torch.cuda.current_stream(device).synchronize()
    return copies
