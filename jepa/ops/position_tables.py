"""Positions of tokens as an encoder or a predictor uses them."""

from typing import Literal

from torch import Tensor

from jepa.ops.published_positions import published_sincos, spread, vjepa2_angles
from jepa.positions import rotary_angles, sincos_table

PositionKind = Literal["sincos", "sincos_published", "rotary", "rotary_vjepa2", "rotary_vjepa2_1"]


def position_table(kind: PositionKind, positions: Tensor, dim: int) -> Tensor:
    """The table added to tokens at coordinates [N, A] -> [N, dim]."""
    return (published_sincos if kind == "sincos_published" else sincos_table)(positions, dim)


def head_angles(kind: PositionKind, positions: Tensor, head_dim: int) -> Tensor:
    """Rotary angles of queries and keys at coordinates [N, A] -> [N, head_dim / 2 or head_dim]."""
    if kind == "rotary_vjepa2_1":
        positions = spread(positions)
    return (vjepa2_angles if kind == "rotary_vjepa2" else rotary_angles)(positions, head_dim)
