"""Long lists in little memory."""

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class PackedStrings(Sequence[str]):
    """A constant list of strings in one buffer.

    A list of str takes about 100 bytes more for each, and every forked worker that reads it copies it, count by count.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        buffer, ends = bytearray(), [0]
        for string in strings:
            buffer += string.encode("utf-8", "surrogateescape")
            ends.append(len(buffer))
        self._buffer, self._ends = bytes(buffer), np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> "PackedStrings": ...

    def __getitem__(self, index: int | slice) -> "str | PackedStrings":
        chosen = range(len(self))[index]
        if isinstance(chosen, range):
            return PackedStrings(self[place] for place in chosen)
        start, end = self._ends[chosen : chosen + 2].tolist()
        return self._buffer[start:end].decode("utf-8", "surrogateescape")
