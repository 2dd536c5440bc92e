"""Vectors, names and labels of a file that `jepa embed` wrote, read in blocks, so that memory stays flat."""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa.config import ConfigError
from jepa.embedding.vectors import VECTOR
from jepa.search.nearest import Floats

_BLOCK_BYTES = 2**24  # vectors in memory at a time
Facts = Mapping[str, Any]  # name, label, ... of a row


@dataclass(frozen=True, eq=False)
class VectorFile(ABC):
    """n vectors of width D, and facts of each row. about: what `jepa embed` noted of the model and the data."""

    path: Path
    about: Facts
    rows: int
    width: int

    @abstractmethod
    def blocks(self) -> Iterator[Floats]:
        """All vectors in order: [b, D] each."""

    @abstractmethod
    def vectors(self, rows: Sequence[int]) -> Floats:
        """The vectors of some rows, in ascending order of the rows: [r, D]."""

    @abstractmethod
    def facts(self, rows: Collection[int]) -> dict[int, Facts]:
        """Facts of some rows, without the vectors."""

    @abstractmethod
    def named(self, names: Collection[str]) -> dict[str, list[int]]:
        """The rows with each of these names; names without rows are left out."""

    @property
    def _block(self) -> int:
        return max(1, _BLOCK_BYTES // (4 * self.width))


def open_vectors(path: Path) -> VectorFile:
    """Open a .parquet, .npy or .safetensors file; raises ConfigError if it holds no vectors that can be compared."""
    if not path.is_file():
        raise ConfigError(f"no file {path}; `jepa embed SOURCE DATA -o {path.name}` writes it")
    try:
        match path.suffix:
            case ".parquet":
                return _parquet(path)
            case ".npy":
                about, array = _described(path), np.load(path, mmap_mode="r")
            case ".safetensors":
                about, array = _safetensors(path)
            case _:
                raise ConfigError(f"{path}: allowed are .parquet, .npy and .safetensors, as `jepa embed` writes them")
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError) as error:  # of cut or mislabelled files
        raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    _check_pooling(path, about)
    array = array[:, 0] if array.ndim == 3 else array  # of two streams, the first
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ConfigError(f"{path} holds {array.dtype} {list(array.shape)}; vectors [n, D] are needed")
    if about.get("rows", len(array)) != len(array):
        raise ConfigError(
            f"{path} has {len(array):,} vectors, and its metadata is of {about['rows']:,}; run `jepa embed` again"
        )
    return _Array(path, about, len(array), array.shape[1], array)


@dataclass(frozen=True, eq=False)
class _Array(VectorFile):
    """An array that is read as needed, and a .csv file with the facts beside it."""

    array: NDArray[Any]

    def blocks(self) -> Iterator[Floats]:
        for first in range(0, self.rows, self._block):
            yield np.asarray(self.array[first : first + self._block], dtype=np.float32)

    def vectors(self, rows: Sequence[int]) -> Floats:
        return np.asarray(self.array[sorted(rows)], dtype=np.float32)

    def facts(self, rows: Collection[int]) -> dict[int, Facts]:
        last = max(rows, default=-1) + 1
        return {number: facts for number, facts in enumerate(islice(self._listed(), last)) if number in rows}

    def named(self, names: Collection[str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, facts in enumerate(self._listed()):
            if facts["name"] in names:
                found.setdefault(facts["name"], []).append(number)
        return found

    def _listed(self) -> Iterator[Facts]:
        """Facts of each row; raises ConfigError at the end if there are not as many as vectors."""
        path, count = self.path.with_name(f"{self.path.name}.csv"), 0
        try:
            with path.open(encoding="utf-8", newline="") as file:
                for count, facts in enumerate(csv.DictReader(file), start=1):  # noqa: B007 - used below
                    yield facts
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; it holds the names of the rows of {self.path}") from error
        if count != self.rows:
            raise ConfigError(
                f"{path} has {count:,} rows, and {self.path} has {self.rows:,} vectors; run `jepa embed` again"
            )


@dataclass(frozen=True, eq=False)
class _Parquet(VectorFile):
    """A file of Parquet, mapped into memory. ends: number of rows up to the end of each row group."""

    file: Any
    ends: NDArray[np.int64] = field(repr=False)

    def blocks(self) -> Iterator[Floats]:
        for batch in self.file.iter_batches(self._block, columns=[VECTOR]):
            yield self._array(batch.column(0))

    def vectors(self, rows: Sequence[int]) -> Floats:
        parts = (part.column(VECTOR).combine_chunks() for _, part in self._taken(rows, [VECTOR]))
        return np.concatenate([self._array(part) for part in parts])

    def facts(self, rows: Collection[int]) -> dict[int, Facts]:
        columns = [name for name in self.file.schema_arrow.names if not name.startswith(VECTOR)]
        taken = self._taken(rows, columns)
        return {row: one for numbers, part in taken for row, one in zip(numbers, part.to_pylist(), strict=True)}

    def named(self, names: Collection[str]) -> dict[str, list[int]]:
        import pyarrow as pa
        import pyarrow.compute as pc

        found: dict[str, list[int]] = {}
        first, wanted = 0, pa.array(list(names), pa.string())
        for batch in self.file.iter_batches(columns=["name"]):
            column = batch.column(0).cast(pa.string())
            places = np.flatnonzero(pc.is_in(column, wanted).to_numpy(zero_copy_only=False))
            for place in places.tolist():
                found.setdefault(column[place].as_py(), []).append(first + place)
            first += len(batch)
        return found

    def _taken(self, rows: Collection[int], columns: list[str]) -> Iterator[tuple[list[int], Any]]:
        """Some rows of each row group that has any: their numbers, and a table."""
        ordered = np.array(sorted(rows), dtype=np.int64)
        groups = np.searchsorted(self.ends, ordered, side="right")
        for group in np.unique(groups).tolist():
            numbers = ordered[groups == group]
            start = self.ends[group - 1] if group else 0
            yield numbers.tolist(), self.file.read_row_group(group, columns=columns).take(numbers - start)

    def _array(self, column: Any) -> Floats:
        values = column.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(values, dtype=np.float32).reshape(-1, self.width)


def _parquet(path: Path) -> VectorFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, memory_map=True)
    schema = file.schema_arrow
    if VECTOR not in schema.names or not pa.types.is_fixed_size_list(schema.field(VECTOR).type):
        raise ValueError(f"it has no column '{VECTOR}' of lists of one length")
    about = json.loads((schema.metadata or {}).get(b"jepa", b"{}"))
    _check_pooling(path, about)
    ends = np.cumsum([file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)])
    return _Parquet(path, about, file.metadata.num_rows, schema.field(VECTOR).type.list_size, file, ends)


def _safetensors(path: Path) -> tuple[Facts, NDArray[Any]]:
    """Metadata, and the vectors mapped into memory."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    tensor = header[VECTOR]
    dtype = {"F32": np.float32, "F16": np.float16}[tensor["dtype"]]
    start = 8 + size + tensor["data_offsets"][0]
    array: NDArray[Any] = np.memmap(path, dtype, "r", start, tuple(tensor["shape"]))
    return json.loads(header.get("__metadata__", {}).get("jepa", "{}")), array


def _described(path: Path) -> Facts:
    try:
        about: Facts = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return about


def _check_pooling(path: Path, about: Facts) -> None:
    if about.get("pooling") == "tokens":
        raise ConfigError(f"{path} holds all tokens of each sample; embed it with another --pooling to search it")
