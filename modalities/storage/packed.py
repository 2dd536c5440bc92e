"""Long lists in little memory."""

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class StringPacker:
    """Gathers strings, one by one, for a `PackedStrings`."""

    def __init__(self) -> None:
        self.buffer, self.ends = bytearray(), array("q", [0])

    def append(self, string: str) -> None:
        """Add one; what is neither Unicode nor an escaped byte of a file name is a UnicodeEncodeError."""
        self.buffer += string.encode("utf-8", "surrogateescape")
        self.ends.append(len(self.buffer))

    def packed(self) -> "PackedStrings":
        """The list of what has been added; nothing can be added afterwards."""
        packed = PackedStrings(())
        packed._buffer, packed._ends = self.buffer, np.frombuffer(self.ends, dtype=np.int64)
        return packed


class PackedStrings(Sequence[str]):
    """A constant list of strings in one buffer.

    A list of str takes about 100 bytes more for each, and every forked worker that reads it copies it, count by count.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        packer = StringPacker()
        for string in strings:
            packer.append(string)
        self._buffer, self._ends = packer.buffer, np.frombuffer(packer.ends, dtype=np.int64)

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
