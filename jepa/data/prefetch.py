"""How many batches workers prepare ahead: bounded in bytes, as every batch waits in shared memory."""

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from jepa.modality import Modality

_MOST = 4  # batches of a worker: more would not hide a slow one any better


def batch_bytes(modality: Modality[Any], samples: int) -> int:
    """Bytes of the views of a batch, as the workers send them."""
    size = modality.views * _bytes(modality.example_loader_view())
    if modality.local_views:
        size += modality.local_views * _bytes(modality.example_local_view())
    return samples * size


def _bytes(view: Any) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(view) if isinstance(leaf, Tensor))


def batches_ahead(size: int, workers: int, megabytes: float) -> int:
    """Batches of `size` bytes that each worker prepares ahead: at least one, and all together within `megabytes`."""
    fitting = int(megabytes * 2**20 // max(1, size * workers))
    return min(_MOST, max(1, fitting))
