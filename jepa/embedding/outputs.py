"""The three formats of the output, each written table by table, so that memory does not grow with the rows.

.parquet holds everything. .npy and .safetensors hold the vectors; names and labels are in a .csv file beside them. The
files beside an output begin with its whole name, so that no two outputs share them.
"""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jepa.config import ConfigError
from jepa.embedding.tables import ColumnType, RowTable

FORMATS = (".parquet", ".npy", ".safetensors")
_SAFE_TYPES = {"float32": "F32", "float16": "F16"}


class Shape(NamedTuple):
    """Number of rows, and the shape of the vectors of one row by column; of the type float32 or float16."""

    rows: int
    vectors: Mapping[str, tuple[int, ...]]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of the vectors of a row."""
        return sum(math.prod(shape) for shape in self.vectors.values()) * np.dtype(self.dtype).itemsize


def check_format(output: Path) -> None:
    """Raise ConfigError unless the ending of the output is that of a format."""
    if output.suffix not in FORMATS:
        raise ConfigError(f"{output}: the ending says the format; allowed are {', '.join(FORMATS)}")


def beside(output: Path) -> list[Path]:
    """The files that are written beside an output."""
    endings = {".parquet": (), ".npy": (".csv", ".json"), ".safetensors": (".csv",)}[output.suffix]
    return [_named(output, ending) for ending in (".bad.txt", *endings)]


def write_output(
    output: Path,
    shape: Shape,
    about: Mapping[str, Any],
    columns: Mapping[str, ColumnType],
    tables: Iterable[RowTable],
    folder: Path,
) -> list[Path]:
    """Write the output and the files beside it into a folder, under their names -> all of them, the output last.

    about: metadata. columns: those before the vectors.
    """
    path = folder / output.name
    if path.suffix == ".parquet":
        _write_parquet(path, shape, about, columns, tables)
        return [path]
    listed, described = _named(path, ".csv"), _named(path, ".json")
    open_vectors = _npy if path.suffix == ".npy" else _safetensors
    with ExitStack() as stack:
        file = stack.enter_context(listed.open("w", encoding="utf-8", errors="backslashreplace", newline=""))
        rows = csv.writer(file)
        rows.writerow(columns)
        write_vectors = stack.enter_context(open_vectors(path, shape, about))
        for table in tables:
            rows.writerows(zip(*table.facts.values(), strict=True))
            write_vectors(table)
    if path.suffix == ".safetensors":
        return [listed, path]
    described.write_text(json.dumps(about, indent=1) + "\n")
    return [listed, described, path]


def _named(output: Path, ending: str) -> Path:
    return output.with_name(output.name + ending)


def _write_parquet(
    path: Path, shape: Shape, about: Mapping[str, Any], columns: Mapping[str, ColumnType], tables: Iterable[RowTable]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"text": pa.string(), "number": pa.float64()}
    fields = {name: types[kind] for name, kind in columns.items()}
    number = pa.from_numpy_dtype(np.dtype(shape.dtype))
    fields |= {name: pa.list_(number, math.prod(of_row)) for name, of_row in shape.vectors.items()}
    schema = pa.schema(fields, metadata={"jepa": json.dumps(about)})
    repeated = [name for name in ("label", "split") if name in columns]
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated) as writer:
        for table in tables:
            arrays = [_arrow(values, fields[name]) for name, values in table.facts.items()]
            for name, vectors in table.vectors.items():
                arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=fields[name]))
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=len(table))


def _arrow(values: Sequence[Any], kind: Any) -> Any:
    """A column of text or numbers; lone surrogates, as in names that are not UTF-8, are escaped."""
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([value and value.encode("utf-8", "backslashreplace").decode() for value in values], kind)


@contextmanager
def _npy(path: Path, shape: Shape, about: Mapping[str, Any]) -> Iterator[Callable[[RowTable], None]]:
    """One array [n, ...]; with vectors of two streams, [n, 2, ...] in the order of the columns."""
    (first, *others), shapes = shape.vectors, list(shape.vectors.values())
    whole = (shape.rows, *((len(shapes),) if others else ()), *shape.vectors[first])
    header = {"descr": np.dtype(shape.dtype).str, "fortran_order": False, "shape": whole}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)

        def write(table: RowTable) -> None:
            columns = [table.vectors[name] for name in shape.vectors]
            file.write(np.ascontiguousarray(np.stack(columns, axis=1) if others else columns[0]).data)

        yield write


@contextmanager
def _safetensors(path: Path, shape: Shape, about: Mapping[str, Any]) -> Iterator[Callable[[RowTable], None]]:
    """A tensor [n, ...] for each column of vectors, and the metadata `jepa`."""
    header: dict[str, Any] = {"__metadata__": {"jepa": json.dumps(about)}}
    starts, end = {}, 0
    for name, of_row in shape.vectors.items():
        size = shape.rows * math.prod(of_row) * np.dtype(shape.dtype).itemsize
        starts[name] = end
        header[name] = {
            "dtype": _SAFE_TYPES[shape.dtype],
            "shape": [shape.rows, *of_row],
            "data_offsets": [end, end + size],
        }
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        places = {name: file.tell() + start for name, start in starts.items()}
        yield lambda table: _write_columns(file, places, table)


def _write_columns(file: BinaryIO, places: dict[str, int], table: RowTable) -> None:
    """Write the vectors of each column at its place, which moves on."""
    for name in places:
        file.seek(places[name])
        places[name] += file.write(np.ascontiguousarray(table.vectors[name]).data)
