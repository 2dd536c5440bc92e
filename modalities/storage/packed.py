"""Long lists of strings in little memory."""

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class StringPacker:
    """Builds a `PackedStrings` string by string."""

    def __init__(self) -> None:
        self.buffer, self.ends = bytearray(), array("q", [0])

    def append(self, string: str) -> None:
        """Add a string of Unicode and escaped bytes of file names; anything else is a UnicodeEncodeError."""
        self.buffer += string.encode("utf-8", "surrogateescape")
        self.ends.append(len(self.buffer))

    def packed(self) -> "PackedStrings":
        """The list of the strings added so far; nothing can be added afterwards."""
        packed = PackedStrings(())
        packed._buffer, packed._ends = self.buffer, np.frombuffer(self.ends, dtype=np.int64)
        return packed


class PackedStrings(Sequence[str]):
    """An immutable list of strings in one buffer.

    A list of str takes about 100 bytes more per string, and forked workers copy its pages as reference counts change.
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
        selected = range(len(self))[index]
        if isinstance(selected, range):
            return PackedStrings(self[each] for each in selected)
        start, end = self._ends[selected : selected + 2].tolist()
        return self._buffer[start:end].decode("utf-8", "surrogateescape")

    def buffers(self) -> tuple[bytearray, bytes]:
        """The text of all strings, and where they end."""
        return self._buffer, self._ends.tobytes()
