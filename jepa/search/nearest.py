"""The nearest vectors by cosine, exactly, from blocks of vectors that need not fit into memory."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Nearest(NamedTuple):
    """The k nearest of n vectors to each of Q queries, best first; equal ones in the order of the rows. Both [Q, k]."""

    similarity: Floats  # cosine, -1 to 1
    rows: NDArray[np.int64]


def nearest(queries: Floats, blocks: Iterable[Floats], count: int) -> Nearest:
    """Compare queries [Q, D] with all vectors, in blocks [n, D] of any lengths."""
    wanted, first = unit(queries), 0
    best = Nearest(np.empty((len(wanted), 0), np.float32), np.empty((len(wanted), 0), np.int64))
    for block in blocks:
        rows = np.arange(first, first + len(block), dtype=np.int64)
        best = _best(best, Nearest(wanted @ unit(block).T, np.broadcast_to(rows, (len(wanted), len(rows)))), count)
        first += len(block)
    return best


def unit(vectors: Floats) -> Floats:
    """Vectors [n, D] of length 1; a vector of zeros stays as it is, so that its cosine with every other is 0."""
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)
    return scaled


def _best(known: Nearest, found: Nearest, count: int) -> Nearest:
    """The best of both, by similarity and then by row; the rows of `known` come before those of `found`."""
    similarity = np.concatenate([known.similarity, found.similarity], axis=1)
    rows = np.concatenate([known.rows, found.rows], axis=1)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return Nearest(np.take_along_axis(similarity, order, axis=1), np.take_along_axis(rows, order, axis=1))
