"""Token positions: coordinates on a grid with any number of axes, as sin-cos tables or rotary angles."""

import torch
from torch import Tensor

Grid = tuple[int, ...]  # tokens along each axis: (rows, columns) for an image, (time, rows, columns) for a video
_BASE = 10_000.0  # of the frequencies, as in Vaswani et al. 2017


def grid_positions(grid: Grid, trained_grid: Grid | None = None) -> Tensor:
    """Coordinates of every token of a grid, last axis fastest: grid (g_1..g_A) -> float [N, A].

    With `trained_grid`, the grid is scaled to the extent of that one, so that an encoder sees another resolution at
    the coordinates of its training: cell centres (i + 1/2) * trained / new - 1/2.
    """
    trained_grid = trained_grid or grid
    axes = [
        (torch.arange(size, dtype=torch.float32) + 0.5) * (trained / size) - 0.5
        for size, trained in zip(grid, trained_grid, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


def sincos_table(positions: Tensor, dim: int) -> Tensor:
    """Fixed sin-cos embedding of coordinates: [N, A] -> [N, dim] (Vaswani et al. 2017, sec. 3.5, per axis).

    Each axis gets an equal share of sin-cos pairs, the first axes one more if the shares are uneven. The last column
    of an odd `dim` is zero.
    """
    axes, pairs = positions.shape[1], dim // 2
    columns = []
    for axis in range(axes):
        share = pairs // axes + (axis < pairs % axes)
        angles = positions[:, axis, None] * frequencies(share, positions.dtype).to(positions)  # [N, share]
        columns += [angles.sin(), angles.cos()]
    table = torch.cat(columns, dim=1)
    return torch.nn.functional.pad(table, (0, dim - table.shape[1]))


def rotary_angles(positions: Tensor, head_dim: int) -> Tensor:
    """Rotation angles of a head's channel pairs: [N, A] -> [N, head_dim // 2] (Su et al. 2021, per axis).

    Every axis rotates the same number of pairs; remaining pairs have angle 0, as in V-JEPA 2.
    """
    axes, pairs = positions.shape[1], head_dim // 2
    share = pairs // axes
    angles = (positions[:, :, None] * frequencies(share).to(positions)).flatten(1)  # [N, A * share]
    return torch.nn.functional.pad(angles, (0, pairs - angles.shape[1]))


def frequencies(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Angles per unit of a coordinate, from 1 downwards: [count]."""
    return _BASE ** (-torch.arange(count, dtype=dtype) / max(count, 1))
