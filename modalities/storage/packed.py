"""Long lists of strings in little memory."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

from jepa.disk.columns import Streamed

_AT_ONCE = 2**15  # strings that are packed, unpacked or moved at once


class StringPacker:
    """Builds a `PackedStrings` string by string."""

    def __init__(self) -> None:
        self.buffer, self.ends = bytearray(), array("q", [0])

    def append(self, string: str) -> None:
        """Add a string of Unicode and escaped bytes of file names; anything else is a UnicodeEncodeError."""
        self.buffer += string.encode("utf-8", "surrogateescape")
        self.ends.append(len(self.buffer))

    def extend(self, strings: Sequence[str]) -> None:
        """Add several strings."""
        text = "".join(strings)
        if not text.isascii():
            for string in strings:
                self.append(string)
            return
        lengths = np.fromiter(map(len, strings), np.int64, len(strings))
        self.ends.frombytes((len(self.buffer) + np.cumsum(lengths)).tobytes())
        self.buffer += text.encode()

    def packed(self) -> "PackedStrings":
        """The list of the strings added so far; nothing can be added afterwards."""
        return PackedStrings.of(np.frombuffer(self.buffer, np.uint8), np.frombuffer(self.ends, np.int64))


class PackedStrings(Sequence[str]):
    """An immutable list of strings in one buffer.

    A list of str takes about 100 bytes more per string, and forked workers copy its pages as reference counts change.
    """

    text: NDArray[np.uint8]
    ends: NDArray[np.int64]
    _buffer: memoryview

    def __init__(self, strings: Iterable[str]) -> None:
        packer = StringPacker()
        for string in strings:
            packer.append(string)
        packed = packer.packed()
        self.text, self.ends, self._buffer = packed.text, packed.ends, packed._buffer

    @classmethod
    def of(cls, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> "PackedStrings":
        """The strings whose bytes are `text` [bytes]; `ends` [count + 1]: where they end, after a 0."""
        packed = cls.__new__(cls)
        packed.text, packed.ends = text, ends
        packed._buffer = text.data
        return packed

    @classmethod
    def joined(cls, parts: Sequence["PackedStrings"]) -> "PackedStrings":
        """The strings of several lists, one after another."""
        if len(parts) == 1:
            return parts[0]
        sizes = np.cumsum([0, *(len(part.text) for part in parts)])
        ends = [part.ends[1:] + size for part, size in zip(parts, sizes, strict=False)]
        return cls.of(np.concatenate([part.text for part in parts]), np.concatenate([[0], *ends]))

    def __reduce__(self) -> tuple[object, ...]:
        return PackedStrings.of, (self.text, self.ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> "PackedStrings": ...

    def __getitem__(self, index: int | slice) -> "str | PackedStrings":
        selected = range(len(self))[index]
        if isinstance(selected, range):
            return self.take(np.arange(selected.start, selected.stop, selected.step))
        start, end = self.ends[selected : selected + 2].tolist()
        return str(self._buffer[start:end], "utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self.batches())

    def batches(self, size: int = _AT_ONCE) -> Iterator[list[str]]:
        """All strings in order, in lists of at most `size`."""
        for data, ends in self._pieces(size):
            text = str(data, "utf-8", "surrogateescape")
            if len(text) == len(data):
                yield [text[start:end] for start, end in pairwise(ends)]
            else:
                yield [data[start:end].decode("utf-8", "surrogateescape") for start, end in pairwise(ends)]

    def encoded(self, size: int = _AT_ONCE) -> Iterator[list[bytes]]:
        """The bytes of all strings in order, in lists of at most `size`."""
        for data, ends in self._pieces(size):
            yield [data[start:end] for start, end in pairwise(ends)]

    def take(self, rows: NDArray[np.int64]) -> "PackedStrings":
        """The strings in these rows."""
        ends = np.zeros(len(rows) + 1, np.int64)
        parts = [slice(first, min(first + _AT_ONCE, len(rows))) for first in range(0, len(rows), _AT_ONCE)]
        for part in parts:
            ends[part.start + 1 : part.stop + 1] = self.ends[rows[part] + 1] - self.ends[rows[part]]
        np.cumsum(ends, out=ends)
        text = np.empty(int(ends[-1]), np.uint8)
        for part in parts:
            own = ends[part.start : part.stop + 1] - ends[part.start]
            places = np.repeat(self.ends[rows[part]] - own[:-1], np.diff(own)) + np.arange(own[-1])
            text[int(ends[part.start]) : int(ends[part.stop])] = self.text[places]
        return PackedStrings.of(text, ends)

    def buffers(self) -> tuple[memoryview, memoryview]:
        """The text of all strings, and where they end."""
        return self._buffer, np.ascontiguousarray(self.ends).view(np.uint8).data

    def _pieces(self, size: int) -> Iterator[tuple[bytes, list[int]]]:
        """Bytes of at most `size` strings, and where each ends in them, after a 0."""
        for first in range(0, len(self), size):
            ends = self.ends[first : first + size + 1]
            begin = int(ends[0])
            yield self._buffer[begin : int(ends[-1])].tobytes(), (ends - begin).tolist()


class TakenStrings:
    """The strings of a list where a mask is true. They are copied piece by piece while they are read."""

    def __init__(self, strings: PackedStrings, mask: NDArray[np.bool_]) -> None:
        self.strings, self.mask = strings, mask

    def __len__(self) -> int:
        return int(np.count_nonzero(self.mask))

    def __iter__(self) -> Iterator[str]:
        parts = zip(self._texts(), self._ends(), strict=True)
        return chain.from_iterable(PackedStrings.of(text, ends - ends[0]) for text, ends in parts)

    def buffers(self) -> tuple[Streamed, Streamed]:
        """As `PackedStrings.buffers`."""
        size = sum(int(ends[-1] - ends[0]) for ends in self._ends())
        text = Streamed(np.dtype(np.uint8), (size,), self._texts)
        return text, Streamed(np.dtype(np.int64), (len(self) + 1,), self._joined_ends)

    def _slices(self) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
        """The mask, and where the strings end after where the first starts, for some strings at a time."""
        for first in range(0, len(self.mask), _AT_ONCE):
            yield self.mask[first : first + _AT_ONCE], self.strings.ends[first : first + _AT_ONCE + 1]

    def _texts(self) -> Iterator[NDArray[np.uint8]]:
        for kept, ends in self._slices():
            yield self.strings.text[ends[0] : ends[-1]][np.repeat(kept, np.diff(ends))]

    def _ends(self) -> Iterator[NDArray[np.int64]]:
        """Where the strings that are taken end, after where the first starts, for some strings at a time."""
        last = 0
        for kept, ends in self._slices():
            found = np.full(np.count_nonzero(kept) + 1, last)
            found[1:] += np.cumsum(np.diff(ends)[kept])
            last = int(found[-1])
            yield found

    def _joined_ends(self) -> Iterator[NDArray[np.int64]]:
        yield np.zeros(1, np.int64)
        for ends in self._ends():
            yield ends[1:]
