"""Comparison of nested structures, and their shapes and types in words."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves

_PLAIN = (int, float, str, bytes, bool, type(None))


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python; on exit, restore their states."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - the global ones
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


def same(one: Any, other: Any) -> bool:
    """Whether two nested structures are equal; leaves that are not tensors, arrays or plain values compare by type."""
    (first, shape), (second, other_shape) = tree_flatten(one), tree_flatten(other)
    return shape == other_shape and all(map(_same_leaf, first, second))


def _same_leaf(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
    if isinstance(one, np.ndarray | np.generic):  # torch converts neither all types nor all strides
        has_nan = np.issubdtype(one.dtype, np.inexact)
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=bool(has_nan))
    if isinstance(one, _PLAIN):
        return bool(one == other or (one != one and other != other))
    return True


def is_comparable(tree: Any) -> bool:
    """Whether a structure has a leaf whose value `same` compares."""
    return any(isinstance(leaf, (Tensor, np.ndarray, np.generic, *_PLAIN)) for leaf in tree_leaves(tree))


def describe(tree: Any) -> str:
    """Types and shapes of the leaves of a structure: float32 [2, 8]."""
    leaves = [
        f"{str(leaf.dtype).removeprefix('torch.')} {list(leaf.shape)}"
        if isinstance(leaf, Tensor)
        else type(leaf).__name__
        for leaf in tree_leaves(tree)
    ]
    return leaves[0] if len(leaves) == 1 else f"({', '.join(leaves)})"
