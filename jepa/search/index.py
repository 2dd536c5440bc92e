"""An approximate index beside a large file of vectors, which reads only the lists of vectors nearest to a query.

It is an inverted file of faiss: k-means divides the vectors into lists. The number of lists that a query reads is the
least that finds nearly all true neighbours of some of the vectors themselves.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from glob import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from jepa.console import CONSOLE, shown
from jepa.disk import replacing, writing
from jepa.disk.locks import exclusive
from jepa.search.nearest import Floats, Nearest, nearest, unit
from jepa.search.stored import VectorFile

EXACT_UP_TO = 100_000  # vectors, which are compared faster than an index is read
RECALL = 0.99  # share of the true neighbours that a query should find
_NEIGHBOURS, _PROBES = 10, 200  # for measuring it: neighbours per query, and queries
_ABOUT_BYTES = 512
_POINTS = 64  # vectors per list that k-means reads


@dataclass(frozen=True)
class About:
    """What an index was made of, how many of its lists a query reads, and the recall that this gave."""

    size: int
    changed: int
    lists: int
    read: int
    recall: float


@dataclass(frozen=True, eq=False)
class Index:
    """An index of faiss."""

    about: About
    faiss: Any

    def nearest(self, queries: Floats, count: int) -> Nearest:
        """As `nearest`, approximately; rows are -1 where fewer were found."""
        self.faiss.nprobe = self.about.read
        return Nearest(*self.faiss.search(unit(queries), count))

    def __str__(self) -> str:
        about = self.about
        if about.read >= about.lists / 2:
            return "comparing with all vectors: they lie in no clusters, so an index would read most of them"
        return (
            f"reading {about.read:,} of {about.lists:,} lists of an index, which finds {about.recall:.1%} of the "
            f"{_NEIGHBOURS} nearest (measured on {_PROBES} of these vectors); --exact compares with all"
        )


def is_installed() -> bool:
    """Whether faiss is."""
    return find_spec("faiss") is not None


def open_index(vectors: VectorFile) -> Index:
    """The index beside a file of vectors, made anew if there is none or the file has changed."""
    import faiss

    path = vectors.path.with_name(f"{vectors.path.name}.faiss")
    if (found := _stored(path, vectors)) is not None:
        return found
    lock, aside = path.with_name(f"{path.name}.lock"), path.with_name(f"{path.name}.{uuid4().hex}.partial")
    with writing(path), exclusive(lock, "two searches may make the same index at the same time") as is_alone:
        try:
            if (found := _stored(path, vectors)) is not None:  # another process made it meanwhile
                return found
            for left in path.parent.glob(f"{escape(path.name)}.*.partial") if is_alone else ():
                left.unlink()  # by a search that was killed
            CONSOLE.print(shown(f"indexing {vectors.rows:,} vectors, once, into {path}"))
            status = vectors.path.stat()
            built, read, recall = _build(vectors)
            about = About(status.st_size, status.st_mtime_ns, built.nlist, read, recall)
            with replacing(path, aside):
                faiss.write_index(built, str(aside))
                with aside.open("ab") as file:
                    file.write(json.dumps(asdict(about)).encode().ljust(_ABOUT_BYTES))
            return Index(about, built)
        finally:
            with suppress(OSError):
                lock.unlink()


def _stored(path: Path, vectors: VectorFile) -> Index | None:
    """The index in a file; None if there is none, it is damaged, or the vectors have changed."""
    import faiss

    status = vectors.path.stat()
    try:
        about = read_about(path)
        if (about.size, about.changed) == (status.st_size, status.st_mtime_ns):
            return Index(about, faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY))
    except (OSError, ValueError, TypeError, RuntimeError):
        pass
    return None


def read_about(path: Path) -> About:
    """The end of the file of an index, which faiss does not read."""
    with path.open("rb") as file:
        file.seek(-_ABOUT_BYTES, os.SEEK_END)
        return About(**json.loads(file.read()))


def _build(vectors: VectorFile) -> tuple[Any, int, float]:
    """An index, the number of lists that a query reads, and the recall."""
    import faiss

    lists, random = max(1, int(2 * vectors.rows**0.5)), np.random.default_rng(0)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(vectors.width), vectors.width, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True
    index.train(unit(vectors.vectors(_some(vectors.rows, _POINTS * lists, random))))
    for block in vectors.blocks():
        index.add(unit(block))
    rows = _some(vectors.rows, _PROBES, random)
    queries = unit(vectors.vectors(rows))
    wanted = _others(nearest(queries, vectors.blocks(), _NEIGHBOURS + 1).rows, rows)
    for read in _powers(lists):
        index.nprobe = read
        found = _others(index.search(queries, _NEIGHBOURS + 1)[1], rows)
        recall = sum(len(some & all_) for some, all_ in zip(found, wanted, strict=True)) / sum(map(len, wanted))
        if recall >= RECALL:
            break
    return index, read, recall


def _others(found: NDArray[np.int64], rows: list[int]) -> list[set[int]]:
    """The neighbours of some rows, without the rows themselves."""
    return [
        set([one for one in near if one != row][:_NEIGHBOURS]) for row, near in zip(rows, found.tolist(), strict=True)
    ]


def _some(count: int, wanted: int, random: np.random.Generator) -> list[int]:
    """Some rows, ascending."""
    rows: list[int] = np.sort(random.choice(count, min(count, wanted), replace=False)).tolist()
    return rows


def _powers(lists: int) -> Iterator[int]:
    read = 1
    while read < lists:
        yield read
        read *= 2
    yield lists
