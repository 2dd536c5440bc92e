"""Recordings as CSV files in class folders, with a column per channel (modalities.storage.folders says which folders).

The first line names the columns: channels in any order, and optionally `time` in seconds. Commas, tabs, semicolons or
pipes separate them. Channels that the device lacks have no column. Files beside the class folders are unlabelled.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa.modality import BadSampleError, Split
from modalities.storage.folders import FileKind, open_folder
from modalities.storage.splits import StoredSplit
from modalities.storage.tables import DELIMITERS, find_delimiter, split_row

TIME = "time"
_MOST_MOMENTS = 1000  # after resampling, for each line
_CSV = FileKind("recordings", (".csv",), partly_labelled=True)


@dataclass(frozen=True)
class RecordingFormat:
    """The format that files are brought into: channels, samples per second, and the least number of samples."""

    channels: Sequence[str]
    rate: float
    length: int


def open_recordings(root: Path, split: Split, target: RecordingFormat, labels: bool = True) -> StoredSplit:
    """The recordings of one split, float32 [C, T] each, NaN in missing channels; and the class names."""
    return open_folder(root.expanduser(), split, _CSV, partial(read_recording, target=target), 0, labels)


def read_recording(path: Path, target: RecordingFormat) -> Tensor:
    """One file in the target format: float32 [C, T]; raises BadSampleError with the line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first, known = file.readline().rstrip("\r\n"), {*target.channels, TIME}
            delimiter = find_delimiter(first, lambda names: known.issuperset(name.strip() for name in names))
            header = [name.strip() for name in split_row(first, delimiter)]
            _check_header(path, header, target.channels, DELIMITERS[delimiter])
            rows = _rows(path, csv.reader(file, delimiter=delimiter), len(header))
            table = np.array(list(rows), dtype=np.float64).reshape(-1, len(header))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadSampleError(str(path), f"cannot be read as CSV: {error}") from error
    columns = dict(zip(header, table.T, strict=True))
    if TIME in columns:
        columns = resampled(path, columns, target.rate)
    return _stacked(path, columns, target)


def resampled(path: Path, columns: dict[str, NDArray[np.float64]], rate: float) -> dict[str, NDArray[np.float64]]:
    """Columns at evenly spaced times, linearly interpolated between the times in the file."""
    time = columns.pop(TIME)
    late = np.flatnonzero(np.diff(time) <= 0)
    if len(late):
        raise BadSampleError(str(path), f"line {late[0] + 3}: time {time[late[0] + 1]} does not follow {time[late[0]]}")
    span = time[-1] - time[0] if len(time) else 0.0
    if span * rate > _MOST_MOMENTS * len(time):
        raise BadSampleError(
            str(path), f"time spans {span:,.0f} seconds in {len(time):,} lines; the column '{TIME}' must be in seconds"
        )
    moments = time[:1] + np.arange(int(span * rate + 1e-6) + 1) / rate
    return {name: np.interp(moments, time, values) for name, values in columns.items()} if len(time) else columns


def _check_header(path: Path, header: Sequence[str], channels: Sequence[str], separators: str) -> None:
    names = ", ".join(channels)
    if unknown := [name for name in header if name not in {*channels, TIME}]:
        allowed = f"{names} and {TIME}, separated by {separators}"
        raise BadSampleError(str(path), f"line 1: unknown column '{unknown[0]}'; allowed: {allowed}")
    if len(set(header)) < len(header) or not set(header) & set(channels):
        raise BadSampleError(str(path), f"line 1: needs columns of different names, at least one of {names}")


def _rows(path: Path, lines: Iterator[list[str]], columns: int) -> Iterator[list[float]]:
    for number, cells in enumerate(lines, start=2):
        if len(cells) != columns:
            raise BadSampleError(str(path), f"line {number}: {len(cells)} cells for {columns} named columns")
        yield [_number(path, number, cell) for cell in cells]


def _number(path: Path, line: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise BadSampleError(str(path), f"line {line}: '{cell}' is not a finite number")
    return value


def _stacked(path: Path, columns: dict[str, NDArray[np.float64]], target: RecordingFormat) -> Tensor:
    count = len(next(iter(columns.values())))
    if count < target.length:
        raise BadSampleError(
            str(path), f"{count} samples at {target.rate:g} Hz, but a window needs {target.length}; see data.seconds"
        )
    missing = np.full(count, np.nan)
    return torch.from_numpy(np.stack([columns.get(name, missing) for name in target.channels]).astype(np.float32))
