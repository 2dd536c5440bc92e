"""Recordings as CSV files in folders: ROOT/{train,validation,test}/CLASS/*.csv, a column for each channel.

The first line names the columns: channels, in any order, and perhaps `time` in seconds. A file lacks the columns of
channels that its device lacks. Files that are right below the folder of a split have no class.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa.modality import BadSampleError, Sample, Split

TIME = "time"


@dataclass(frozen=True)
class Layout:
    """What is made of a file: which channels, how many samples a second, and how many at least."""

    channels: Sequence[str]
    rate: float
    length: int


class Recordings:
    """The files of a split, float32 [C, T] each, not a number in channels that a file lacks; `class` where they lie in

    folders of classes. Raises ValueError where there are none.
    """

    def __init__(self, root: Path, split: Split, layout: Layout) -> None:
        self.folder, self.layout = root.expanduser() / split, layout
        self.paths = sorted(self.folder.rglob("*.csv"))
        if not self.paths:
            raise ValueError(f"no .csv files below {self.folder}; {root} needs train, validation and test with such")
        self.classes = class_names(root)
        for path in self.paths:
            if self._class(path) not in {*self.classes, ""}:
                allowed = ", ".join(self.classes) or "none"
                raise ValueError(f"{path}: the training split has no class '{self._class(path)}'; it has {allowed}")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        path = self.paths[index]
        name = self._class(path)
        return Sample(read_recording(path, self.layout), {"class": self.classes.index(name)} if name else {})

    def _class(self, path: Path) -> str:
        parts = path.relative_to(self.folder).parts
        return parts[0] if len(parts) > 1 else ""


def class_names(root: Path) -> list[str]:
    """Folders of the training split that hold files, sorted."""
    folder = root.expanduser() / "train"
    found = (path.relative_to(folder).parts for path in folder.rglob("*.csv"))
    return sorted({parts[0] for parts in found if len(parts) > 1})


def read_recording(path: Path, layout: Layout) -> Tensor:
    """One file at the layout's rate: float32 [C, T]; raises BadSampleError, which names the line."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            header = [name.strip() for name in next(lines, [])]
            _check_header(path, header, layout.channels)
            table = np.array(list(_rows(path, lines, len(header))), dtype=np.float64).reshape(-1, len(header))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadSampleError(str(path), f"cannot be read as CSV: {error}") from error
    columns = dict(zip(header, table.T, strict=True))
    if TIME in columns:
        columns = resampled(path, columns, layout.rate)
    return _stacked(path, columns, layout)


def resampled(path: Path, columns: dict[str, NDArray[np.float64]], rate: float) -> dict[str, NDArray[np.float64]]:
    """Columns at evenly spaced moments, linearly between those that were written down at `time`."""
    time = columns.pop(TIME)
    late = np.flatnonzero(np.diff(time) <= 0)
    if len(late):
        raise BadSampleError(str(path), f"line {late[0] + 3}: time {time[late[0] + 1]} does not follow {time[late[0]]}")
    span = time[-1] - time[0] if len(time) else 0.0
    moments = time[:1] + np.arange(int(span * rate + 1e-6) + 1) / rate
    return {name: np.interp(moments, time, values) for name, values in columns.items()} if len(time) else columns


def _check_header(path: Path, header: Sequence[str], channels: Sequence[str]) -> None:
    unknown = [name for name in header if name not in {*channels, TIME}]
    if unknown:
        raise BadSampleError(
            str(path), f"line 1: unknown column '{unknown[0]}'; allowed: {', '.join(channels)} and {TIME}"
        )
    if len(set(header)) < len(header) or not set(header) & set(channels):
        raise BadSampleError(
            str(path), f"line 1: needs columns of different names, one at least of {', '.join(channels)}"
        )


def _rows(path: Path, lines: Iterator[list[str]], columns: int) -> Iterator[list[float]]:
    for number, cells in enumerate(lines, start=2):
        if len(cells) != columns:
            raise BadSampleError(str(path), f"line {number}: {len(cells)} cells, but {columns} columns have a name")
        yield [_number(path, number, cell) for cell in cells]


def _number(path: Path, line: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise BadSampleError(str(path), f"line {line}: '{cell}' is not a finite number")
    return value


def _stacked(path: Path, columns: dict[str, NDArray[np.float64]], layout: Layout) -> Tensor:
    count = len(next(iter(columns.values())))
    if count < layout.length:
        raise BadSampleError(
            str(path), f"{count} samples at {layout.rate:g} Hz, but a window needs {layout.length}; see data.seconds"
        )
    absent = np.full(count, np.nan)
    return torch.from_numpy(np.stack([columns.get(name, absent) for name in layout.channels]).astype(np.float32))
