"""Neighbours among many vectors: time and recall of comparing with all, of our index, and of HNSW.

`python -m benchmarks.neighbours RUN` measures random vectors and real ones: tokens of the run's training images. Each
time is CPU seconds of this process, the median of three. Queries are vectors that the file does not hold.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks.provenance import heading, provenance, table, write
from jepa.data import open_split
from jepa.embedding.job import open_job
from jepa.embedding.settings import EmbedSettings
from jepa.search.index import RECALL, open_index
from jepa.search.nearest import Floats, nearest, unit
from jepa.search.stored import open_vectors

_QUERIES, _NEIGHBOURS, _REPEATS = 200, 10, 3


def main() -> None:
    """Measure, and write benchmarks/results/neighbours.json and .md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--vectors", type=int, default=120_000)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/neighbours.json"))
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(torch.get_num_threads())
    real = _tokens(arguments.run, arguments.vectors + _QUERIES)
    made = np.random.default_rng(0).standard_normal(real.shape, dtype=np.float32)
    rows = [row for name, vectors in (("random", made), ("tokens", real)) for row in _measured(name, vectors)]
    source = provenance("benchmarks.neighbours")
    write(arguments.output, {**source, "vectors": arguments.vectors, "rows": rows}, _page(source, rows, real.shape[1]))


def _tokens(run: Path, count: int) -> Floats:
    """Token features of training images, in random order: [count, D]."""
    source = open_job(run, EmbedSettings(pooling="tokens"))
    embedder, samples = source.embedder(torch.device("cpu")), open_split(source.modality, "train")
    parts: list[Floats] = []
    for first in range(0, len(samples), 64):
        views = [source.modality.evaluation_view(samples[index].inputs) for index in range(first, first + 64)]
        parts.append(embedder.vectors([torch.stack(views)])["vector"].flatten(0, 1).numpy())
        if len(parts) * len(parts[0]) >= count:
            break
    vectors: Floats = np.random.default_rng(0).permutation(np.concatenate(parts))[:count]
    return vectors


def _measured(name: str, vectors: Floats) -> list[dict[str, Any]]:
    held_out, stored = vectors[:_QUERIES], vectors[_QUERIES:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        np.save(path, stored)
        opened = open_vectors(path)
        exact = nearest(held_out, opened.blocks(), _NEIGHBOURS).rows
        seconds = _seconds(lambda: nearest(held_out[:1], opened.blocks(), _NEIGHBOURS))
        rows: list[dict[str, Any]] = [{"vectors": name, "way": "all", "built": 0.0, "query": seconds, "recall": 1.0}]
        start = time.process_time()
        built = open_index(opened)
        rows.append(_row(name, f"{built.about.read} of {built.about.lists} lists", time.process_time() - start))
        rows[-1] |= _found(exact, lambda queries: open_index(opened).nearest(queries, _NEIGHBOURS).rows, held_out)
    start = time.process_time()
    graph = faiss.IndexHNSWFlat(stored.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    graph.add(unit(stored))
    rows.append(_row(name, "", time.process_time() - start))
    for graph.hnsw.efSearch in (16, 32, 64, 128, 256, 512, 1024):
        found = _found(exact, lambda queries: graph.search(unit(queries), _NEIGHBOURS)[1], held_out)
        rows[-1] |= {"way": f"HNSW, efSearch {graph.hnsw.efSearch}", **found}
        if found["recall"] >= RECALL:
            break
    return rows


def _row(name: str, way: str, built: float) -> dict[str, Any]:
    return {"vectors": name, "way": way, "built": built}


def _found(exact: Any, search: Callable[[Floats], Any], queries: Floats) -> dict[str, float]:
    """Seconds of a query, and the share of the true neighbours that all queries find."""
    found = search(queries)
    same = sum(len({*some} & {*all_}) for some, all_ in zip(found.tolist(), exact.tolist(), strict=True))
    return {"query": _seconds(lambda: search(queries[:1])), "recall": same / exact.size}


def _seconds(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(_REPEATS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def _page(source: Any, rows: list[dict[str, Any]], width: int) -> str:
    cells = [
        [one["vectors"], one["way"], f"{one['built']:.1f}", f"{1000 * one['query']:.1f}", f"{one['recall']:.3f}"]
        for one in rows
    ]
    found = table(["vectors", "compared with", "s to build", "ms a query", "recall@10"], cells)
    words = (
        f"{_QUERIES} queries that the file does not hold, {width} values a vector; CPU seconds. `jepa search` compares "
        "with all, or with lists; both are read from the disk's cache for every query. HNSW is in memory already."
    )
    return f"# Neighbours among many vectors\n\n{heading(source)}\n\n{words}\n\n{found}"


if __name__ == "__main__":
    main()
