"""The neighbours of queries: by comparison with all vectors, or with an index where there are many."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from jepa.config import ConfigError
from jepa.console import CONSOLE
from jepa.search.index import EXACT_UP_TO, Index, is_installed, open_index
from jepa.search.nearest import Floats, Nearest, nearest
from jepa.search.queries import Query
from jepa.search.stored import VectorFile
from jepa.search.table import Neighbour


def neighbours(vectors: VectorFile, queries: Sequence[Query], count: int, exact: bool = False) -> list[list[Neighbour]]:
    """The `count` nearest rows of each query, best first, without its own rows.

    exact: compare with all vectors, also where an index would be faster. Sentences always are: they lie apart from the
    vectors on which the recall of an index is measured. Raises ConfigError for vectors of different widths.
    """
    if wrong := [query for query in queries if query.vector.shape != (vectors.width,)]:
        text, width = wrong[0].text, len(wrong[0].vector)
        raise ConfigError(f"the vector of '{text}' has {width} values, those of {vectors.path} have {vectors.width}")
    index = None if exact or vectors.rows <= EXACT_UP_TO else _index(vectors)
    compared = [query for query in queries if index is None or query.kind == "sentence"]
    looked_up = [query for query in queries if query not in compared]
    found: dict[Query, list[tuple[float, int]]] = {}
    for group, search in ((compared, partial(_exactly, vectors)), (looked_up, index.nearest if index else None)):
        if group and search:
            wanted = count + max(len(query.own) for query in group)
            near = search(np.stack([query.vector for query in group]), wanted)
            pairs = (zip(*both, strict=True) for both in zip(near.similarity.tolist(), near.rows.tolist(), strict=True))
            found |= {query: _others(query, list(one))[:count] for query, one in zip(group, pairs, strict=True)}
    facts = vectors.facts({row for pairs in found.values() for _, row in pairs})
    return [
        [Neighbour(rank, similarity, row, facts[row]) for rank, (similarity, row) in enumerate(found[query], start=1)]
        for query in queries
    ]


def _exactly(vectors: VectorFile, queries: Floats, count: int) -> Nearest:
    return nearest(queries, vectors.blocks(), count)


def _others(query: Query, pairs: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Similarity and row of neighbours, without the query itself; an index that finds too few gives rows of -1."""
    return [(similarity, row) for similarity, row in pairs if row >= 0 and row not in query.own]


def _index(vectors: VectorFile) -> Index | None:
    if not is_installed():
        CONSOLE.print(f"comparing with all {vectors.rows:,} vectors; pip install 'openjepa[search]' makes this faster")
        return None
    index = open_index(vectors)
    CONSOLE.print(str(index))
    return index if index.about.read < index.about.lists / 2 else None
