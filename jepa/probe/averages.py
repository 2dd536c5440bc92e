"""Averages of neighbouring tokens, which keep the sequences of attentive probes short."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa.probe.missing import without_nan


def averaged_grid(grid: Sequence[int], limit: int) -> tuple[int, ...]:
    """A grid of at most `limit` tokens: halves the longest axis (on a tie, the last one) until they are few enough."""
    sizes = list(grid)
    while math.prod(sizes) > limit and max(sizes) > 1:
        axis = max(range(len(sizes)), key=lambda axis: (sizes[axis], axis))
        sizes[axis] = math.ceil(sizes[axis] / 2)
    return tuple(sizes)


def averages(grid: Sequence[int], smaller: Sequence[int]) -> Tensor | None:
    """Matrix [M, N] that averages the tokens of a grid to those of a smaller one; None if both are the same."""
    if tuple(smaller) == tuple(grid):
        return None
    matrix = torch.ones(1, 1)
    for size, length in zip(smaller, grid, strict=True):
        means = F.adaptive_avg_pool1d(torch.eye(length).unsqueeze(0), size)[0].T  # [size, length]
        matrix = torch.kron(matrix, means)
    return matrix


def averaged(tokens: Tensor, matrix: Tensor | None) -> Tensor:
    """Tokens averaged by such a matrix: [..., N, D] -> [..., M, D]. Those that a sample lacks are NaN and left out."""
    if matrix is None:
        return tokens
    matrix = matrix.to(tokens)
    tokens, valid = without_nan(tokens)
    sums = matrix @ tokens
    return sums if valid is None else sums / (matrix @ valid.unsqueeze(-1).to(tokens))  # NaN for averages of none


def pooling(grid: Sequence[int], limit: int) -> Tensor | None:
    """Matrix [M, N] that averages neighbouring tokens, M at most `limit`; None if the grid is already that small."""
    return averages(grid, averaged_grid(grid, limit))
