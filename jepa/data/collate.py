"""Views of several samples as one batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import default_collate


def collated(views: Sequence[Any]) -> Any:
    """As `default_collate`, but pictures keep their order in memory: to stack them is then a plain copy."""
    leaves = tree_leaves(views[0])
    if not all(isinstance(leaf, Tensor) for leaf in leaves) or all(leaf.is_contiguous() for leaf in leaves):
        return default_collate(list(views))
    return tree_map(_stacked, *views)


def _stacked(*leaves: Tensor) -> Tensor:
    order = sorted(range(leaves[0].ndim), key=leaves[0].stride, reverse=True)
    batch = torch.stack([leaf.permute(order) for leaf in leaves])
    return batch.permute(0, *(1 + order.index(axis) for axis in range(len(order))))
