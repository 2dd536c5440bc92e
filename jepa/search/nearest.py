"""The nearest vectors by cosine, exactly, from blocks of vectors that need not fit into memory."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Nearest(NamedTuple):
    """The k nearest of n vectors to each of Q queries, best first. Both [Q, k]."""

    similarity: Floats  # cosine, -1 to 1
    rows: NDArray[np.int64]


def nearest(queries: Floats, blocks: Iterable[Floats], count: int) -> Nearest:
    """Compare queries [Q, D] with all vectors, in blocks [n, D] of any lengths."""
    wanted, first = unit(queries), 0
    best = Nearest(np.empty((len(wanted), 0), np.float32), np.empty((len(wanted), 0), np.int64))
    for block in blocks:
        rows = np.arange(first, first + len(block), dtype=np.int64)
        cosines = wanted @ block.T / _lengths(block)  # dividing the block first would copy it
        best = _best(best, Nearest(cosines, np.broadcast_to(rows, (len(wanted), len(rows)))), count)
        first += len(block)
    return best


def unit(vectors: Floats) -> Floats:
    """Vectors [n, D] of length 1; a vector of zeros stays as it is, so that its cosine with every other is 0."""
    vectors = np.asarray(vectors, dtype=np.float32)
    scaled: Floats = vectors / _lengths(vectors)[:, None]
    return scaled


def _lengths(vectors: Floats) -> Floats:
    """Lengths [n] of vectors [n, D], 1 for those of zeros."""
    lengths: Floats = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    lengths[lengths == 0] = 1
    return lengths


def _best(known: Nearest, found: Nearest, count: int) -> Nearest:
    """The best of both."""
    similarity = np.concatenate([known.similarity, found.similarity], axis=1)
    rows = np.concatenate([known.rows, found.rows], axis=1)
    if 8 * count < similarity.shape[1]:  # sorting all would take most of the time
        near = np.sort(np.argpartition(-similarity, count, axis=1)[:, :count], axis=1)
        similarity, rows = (np.take_along_axis(values, near, axis=1) for values in (similarity, rows))
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return Nearest(np.take_along_axis(similarity, order, axis=1), np.take_along_axis(rows, order, axis=1))
