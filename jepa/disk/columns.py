"""Named arrays in one file that processes map into memory, and where the index of a data set lies.

A file is a magic word, the length of the header, the header (JSON: facts, and the types, shapes and places of the
arrays), the arrays, and a digest of all of this. Nothing in it is executed.
"""

import json
import math
import mmap
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from jepa.disk import replacing

_MAGIC = b"JEPACOL1"
_ALIGNMENT = 64
_DIGEST = 16  # bytes
_BLOCK = 2**22  # bytes that are hashed or copied at once
_ABANDONED = 3_600  # seconds after which the file of another writer is the rest of a killed process


class DamagedError(Exception):
    """A file of columns is cut off, was changed, or is none; the message is a phrase that says which."""


@dataclass(frozen=True, eq=False)
class IndexFolder:
    """Where the index of a data set lies.

    path: the folder that is written. also: folders that are only searched. writes: whether this process writes what it
    does not find. checks: whether it makes sure that the data is as it was; otherwise another process has done so, for
    the files in `used`. rebuilds: whether nothing is read that was there before. least: samples of a split from which
    on an index is written. used: names of the files that were read or written. outdated: what has changed since, said
    once for all splits. on_close: what frees the memory that only writing needs.
    """

    path: Path
    also: tuple[Path, ...] = ()
    writes: bool = False
    checks: bool = True
    rebuilds: bool = False
    least: int = 10_000
    used: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)
    on_close: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        """Free the memory that only writing needs."""
        while self.on_close:
            self.on_close.pop()()


class Columns(Mapping[str, NDArray[Any]]):
    """Arrays by name, in memory or mapped from a file. A pickled copy of mapped ones maps the file again."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], origin: tuple[Path, str] | None = None) -> None:
        """origin: the file that the arrays are mapped from, and its digest."""
        self._arrays, self.origin = dict(arrays), origin

    def __reduce__(self) -> tuple[Any, ...]:
        return (_mapped_again, self.origin) if self.origin else (Columns, (self._arrays,))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


@dataclass(frozen=True, eq=False)
class Streamed:
    """An array that is made block by block while it is written, so that it never lies in memory as a whole."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[NDArray[Any]]]  # its values, in order

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.dtype.itemsize * math.prod(self.shape)

    def whole(self) -> NDArray[Any]:
        """The array in memory."""
        return np.concatenate([np.empty(0, self.dtype), *self.blocks()]).reshape(self.shape)


def write_columns(path: Path, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any] | Streamed]) -> None:
    """Write facts, as JSON can hold them, and arrays to a file, atomically; raises WriteError."""
    described, offset = {}, 0
    for name, array in arrays.items():
        described[name] = [array.dtype.str, list(array.shape), offset]
        offset += _padded(array.nbytes)
    header = json.dumps({"facts": facts, "arrays": described}).encode()
    aside = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
    with replacing(path, aside):
        _remove_abandoned(path)
        with aside.open("wb") as file:
            writer = _HashingWriter(file)
            writer.write(_MAGIC + len(header).to_bytes(8, "little") + header)
            writer.write(bytes(_padded(writer.size) - writer.size))
            for array in arrays.values():
                for block in bytes_of(array):
                    writer.write(block)
                writer.write(bytes(_padded(array.nbytes) - array.nbytes))
            file.write(writer.digest.digest())


def read_columns(path: Path) -> tuple[dict[str, Any], Columns]:
    """The facts and the mapped arrays of a file, every byte of which is checked; raises DamagedError and OSError."""
    with path.open("rb") as file:
        size, whole = os.fstat(file.fileno()).st_size, blake2b(digest_size=_DIGEST)
        left = size - _DIGEST
        while left > 0 and (block := file.read(min(left, _BLOCK))):
            whole.update(block)
            left -= len(block)
        stored = file.read(_DIGEST)
        if stored != whole.digest():
            raise DamagedError("it is cut off or was changed")
        return _mapped(path, file, size, stored.hex())


def _mapped_again(path: Path, digest: str) -> Columns:
    """The arrays of a file that another process has checked."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _DIGEST))
            if file.read().hex() != digest:
                raise DamagedError("it was written anew")
            return _mapped(path, file, size, digest)[1]
    except (OSError, DamagedError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RuntimeError(f"{path}, the index of the data, cannot be used any more: {reason}; start again") from error


def _mapped(path: Path, file: BinaryIO, size: int, digest: str) -> tuple[dict[str, Any], Columns]:
    memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = len(_MAGIC) + 8
    length = int.from_bytes(memory[start - 8 : start], "little")
    if memory[: len(_MAGIC)] != _MAGIC or start + length > size:
        raise DamagedError("it is of another version")
    header = json.loads(memory[start : start + length])
    first, arrays = _padded(start + length), {}
    for name, (dtype, shape, offset) in header["arrays"].items():
        array = np.frombuffer(memory, dtype, math.prod(shape), first + offset)
        arrays[name] = array.reshape(shape)
    return header["facts"], Columns(arrays, (path, digest))


class _HashingWriter:
    """Writes to a file and hashes what it writes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size, self.digest = file, 0, blake2b(digest_size=_DIGEST)

    def write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)


def bytes_of(array: NDArray[Any] | Streamed) -> Iterator[memoryview]:
    """The bytes of an array, in blocks."""
    if isinstance(array, Streamed):
        for block in array.blocks():
            yield from bytes_of(block)
        return
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, len(flat), _BLOCK):
        yield flat[start : start + _BLOCK].data


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _remove_abandoned(path: Path) -> None:
    """Remove what killed writers of this file have left."""
    for other in path.parent.glob(f"{path.name}.*.partial"):
        with suppress(OSError):
            if time.time() - other.stat().st_mtime > _ABANDONED:
                other.unlink()
