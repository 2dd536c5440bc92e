"""Inputs that a caller gives instead of a data set: files, arrays, Pillow images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

ValueRange = tuple[float, float]  # values that are black and white


@runtime_checkable
class AcceptsGiven(Protocol):
    """A modality that accepts more than tensors as its data sets yield them."""

    def stored_input(self, given: Any, value_range: ValueRange) -> Any:
        """A path, an array or a Pillow image -> inputs as the data sets yield them.

        value_range: of arrays of floats. Raises BadSampleError for a file that cannot be read, and ValueError with what
        is allowed for anything else.
        """
        ...


@runtime_checkable
class AcceptsSentences(Protocol):
    """A modality of two matching streams, of which the second one is text."""

    streams: Sequence[Any]

    def sentence_view(self, sentence: str) -> Any:
        """The evaluation view of a sentence beside an empty first stream."""
        ...


def stored_input(modality: Any, given: Any, value_range: ValueRange = (0.0, 1.0)) -> Any:
    """One input from a caller -> inputs as the data sets of the modality yield them; errors as in `AcceptsGiven`.

    A modality that does not accept more takes arrays in the shape of its samples, with floats as float32.
    """
    if isinstance(modality, AcceptsGiven):
        return modality.stored_input(given, value_range)
    if isinstance(given, Tensor | np.ndarray):
        values = given if isinstance(given, Tensor) else torch.from_numpy(np.array(given))  # which may be read-only
        return values.float() if values.is_floating_point() else values
    name = type(modality).__name__
    if isinstance(given, str | Path):
        raise ValueError(f"{name} has no method stored_input, so it cannot read the file {given}; give arrays")
    raise ValueError(f"{name} takes arrays in the shape of its samples, not {given!r:.80}")
