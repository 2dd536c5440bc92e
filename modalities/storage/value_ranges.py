"""Warnings about deep images that lose most of their values because nobody said what is black and what is white."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa.modality import BadSampleError, Samples

_FEW = 64  # of 256 levels: what 14-bit data uses in 16-bit files
_TAILS = 0.001  # share of values at either end that may lie anywhere, such as hot pixels
_MOST = 100_000  # values of an image that are looked at


@dataclass(frozen=True)
class ValueRange:
    """Where almost all values of one image lie, and its least and greatest value. white: what is stored for white."""

    low: float
    high: float
    least: float
    greatest: float
    white: float


_observed: ContextVar[list[ValueRange] | None] = ContextVar("observed", default=None)


def is_observed() -> bool:
    """Whether the values of deep images are being observed; they must then be read in full depth."""
    return _observed.get() is not None


def observe(values: NDArray[Any], white: float) -> None:
    """Note the values of a deep image, if they are being observed."""
    seen = _observed.get()
    finite = values[np.isfinite(values)] if seen is not None else values[:0]
    if seen is None or not finite.size:
        return
    some = finite[:: max(1, finite.size // _MOST)]
    low, high = np.quantile(some, (_TAILS, 1 - _TAILS), method="nearest")
    seen.append(ValueRange(float(low), float(high), float(finite.min()), float(finite.max()), white))


@contextmanager
def _observing() -> Iterator[list[ValueRange]]:
    seen: list[ValueRange] = []
    token = _observed.set(seen)
    try:
        yield seen
    finally:
        _observed.reset(token)


def value_range_warnings(samples: Samples, view: Callable[[Any], object], count: int) -> list[str]:
    """Warnings about the value ranges of up to `count` samples, evenly spread; view: reads what a sample leaves unread.

    None for images of 8 bits. Unreadable samples are passed over: whoever trains on them lists them.
    """
    with _observing() as seen:
        for number in range(min(count, len(samples))):
            with suppress(BadSampleError):
                view(samples[number * len(samples) // min(count, len(samples))].inputs)
    if not seen:
        return []
    low, high = min(one.low for one in seen), max(one.high for one in seen)
    white = seen[0].white
    if any(one.least < 0 or one.greatest > one.white for one in seen):
        return [
            f"some images have values below 0 or above {white:g}, so each of them is scaled by its own extremes; "
            f"{_advice(low, high)} would scale all alike"
        ]
    levels = math.floor((high - low) / white * 255) + 1
    if levels > _FEW or low == high:
        return []
    return [
        f"almost all values of the images lie between {low:g} and {high:g} of {white:g}, so they use {levels} of 256 "
        f"levels; {_advice(low, high)} would use all"
    ]


def _advice(low: float, high: float) -> str:
    """The setting that fits values from `low` to `high`: the bits that hold them, or else rounded outwards."""
    whole = high.is_integer() and high > 1
    if whole and 0 <= low < high / 2 and high < 2**16:
        return f"data.value_range=[0,{2 ** max(1, math.ceil(math.log2(high + 1))) - 1}]"
    step = 10.0 ** (math.floor(math.log10(high - low)) - 1) if high > low else 1.0
    ends: Sequence[float] = (math.floor(low / step) * step, math.ceil(high / step) * step or step)
    return f"data.value_range=[{ends[0]:.6g},{ends[1]:.6g}]"
