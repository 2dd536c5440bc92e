"""The rows of the output, from parts of any sizes: names, labels and vectors in tables of one size."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jepa.disk.columns import Columns
from jepa.embedding.rows import Rows
from jepa.embedding.vectors import VECTOR
from jepa.modality import Task

Values = Sequence[Any]
ColumnType = Literal["text", "number"]


class RowTable(NamedTuple):
    """Some rows: what is known of each, by column, and its vectors, by column: [n, ...]."""

    facts: dict[str, Values]
    vectors: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.vectors.values())))


def tables(rows: Rows, contents: Iterable[tuple[Mapping[str, Any], Columns]], size: int) -> Iterator[RowTable]:
    """The rows of all parts in tables of `size` rows; only the last one may have fewer."""
    waiting: list[RowTable] = []
    count = 0
    for facts, arrays in contents:
        table, start = row_table(rows, facts["texts"], arrays), 0
        while start < len(table):
            taken = _slice(table, start, start + size - count)
            waiting.append(taken)
            start, count = start + len(taken), count + len(taken)
            if count == size:
                yield _joined(waiting)
                waiting, count = [], 0
    if waiting:
        yield _joined(waiting)


def column_types(rows: Rows) -> dict[str, ColumnType]:
    """The columns of the output before its vectors, in order."""
    labels = {name: "text" if task.kind == "class" else "number" for name, task in _label_columns(rows.tasks).items()}
    columns: dict[str, ColumnType] = {"name": "text", "label": "text", **labels, "split": "text"}  # type: ignore[dict-item]
    if rows.windows is not None:
        columns |= {"start": "number", "end": "number"}
    if rows.has_text:
        columns["text"] = "text"
    return columns


def _label_columns(tasks: Sequence[Task]) -> dict[str, Task]:
    """The column of each label: `label` for the first classes, and else `label_NAME`."""
    first = next((task for task in tasks if task.kind == "class"), None)
    return {"label" if task is first else f"label_{task.label}": task for task in tasks}


def row_table(rows: Rows, texts: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> RowTable:
    """The rows of a part. texts: of their second streams. arrays: `rows` and `labels` of the part, and its vectors."""
    numbers: list[int] = arrays["rows"].tolist()
    samples = [rows.sample(row) for row in numbers]
    known: dict[str, Values] = {
        "name": [rows.chain.name(sample) for sample in samples],
        "label": [None] * len(numbers),
        "split": [rows.chain.split(sample) for sample in samples],
        "text": texts,
    }
    for place, (column, task) in enumerate(_label_columns(rows.tasks).items()):
        known[column] = list(map(_reader(task), arrays["labels"][:, place].tolist()))
    if rows.windows is not None:
        known |= {"start": rows.windows.starts[numbers].tolist(), "end": rows.windows.ends[numbers].tolist()}
    ordered = {name: known[name] for name in column_types(rows)}
    return RowTable(ordered, {name: arrays[name] for name in arrays if name.startswith(VECTOR)})


def _reader(task: Task) -> Callable[[float], Any]:
    """Reads a stored label: None where unknown; the name of a class, or its number if it has no name."""

    def read(value: float) -> Any:
        if np.isnan(value):
            return None
        if task.kind != "class":
            return value
        number = int(value)
        return task.classes[number] if number < len(task.classes) else str(number)

    return read


def _slice(table: RowTable, start: int, end: int) -> RowTable:
    facts = {name: values[start:end] for name, values in table.facts.items()}
    return RowTable(facts, {name: values[start:end] for name, values in table.vectors.items()})


def _joined(parts: Sequence[RowTable]) -> RowTable:
    facts: dict[str, Values] = {
        name: [value for part in parts for value in part.facts[name]] for name in parts[0].facts
    }
    vectors = {name: np.concatenate([part.vectors[name] for part in parts]) for name in parts[0].vectors}
    return RowTable(facts, vectors)
