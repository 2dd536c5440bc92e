"""What may be given as X: arrays, and lists of paths, Pillow images or arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

_SAMPLES = (str, Path, Image, torch.Tensor, np.ndarray)


def items_of(estimator: Any, given: Any, reset: bool) -> Sequence[Any]:
    """X -> its samples; raises ValueError if it holds none, and TypeError for a sparse matrix.

    reset: whether the number of columns of a table is remembered, or checked.
    """
    if isinstance(given, str | Path | Image):
        raise ValueError(f"X holds many samples: give a list, such as [{given!r:.80}]")
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu().numpy()
    if _is_empty(given):
        raise ValueError("X is empty; at least one sample is needed")
    if isinstance(given, np.ndarray) and given.dtype.kind not in "OU" and given.ndim > 2:
        samples: Sequence[Any] = check_array(given, allow_nd=True)
        return samples
    if items := _listed(given):
        return items
    table: Sequence[Any] = validate_data(estimator, given, reset=reset)
    return table


def _is_empty(given: Any) -> bool:
    """Whether it has no rows."""
    if isinstance(given, Sequence):
        return len(given) == 0
    return bool(getattr(given, "shape", (1,))[:1] == (0,))


def _listed(given: Any) -> list[Any]:
    """The items of a list, a Series or a column of samples; none for anything else, such as rows of numbers."""
    if hasattr(given, "to_numpy"):  # of pandas or polars
        given = given.to_numpy()
    if isinstance(given, np.ndarray):
        is_column = given.ndim == 1 or (given.ndim == 2 and given.shape[1] == 1)
        given = given.ravel().tolist() if given.dtype.kind in "OU" and is_column else []
    items = list(given) if isinstance(given, Sequence) else []
    is_sample = (isinstance(item, _SAMPLES) and getattr(item, "ndim", 2) > 1 for item in items)
    return items if all(is_sample) else []
