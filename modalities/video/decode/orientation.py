"""How stored frames are turned and mirrored to be upright."""

import struct
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Orientation:
    """Rows and columns change places first, then left and right, then top and bottom."""

    transposed: bool = False
    mirrored: bool = False  # left and right
    flipped: bool = False  # top and bottom

    @property
    def turns_only(self) -> bool:
        """Whether this is a rotation, without a mirror image."""
        return not (self.transposed ^ self.mirrored ^ self.flipped)

    def upright(self, frames: Tensor) -> Tensor:
        """[T, H, W, 3] as stored  ->  upright."""
        turned = frames.transpose(1, 2) if self.transposed else frames
        axes = [axis for axis, applies in ((2, self.mirrored), (1, self.flipped)) if applies]
        return torch.flip(turned, axes) if axes else turned

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width as stored -> upright, or the reverse."""
        return (width, height) if self.transposed else (height, width)


def orientation_of(matrix: bytes | None) -> Orientation:
    """The orientation that FFmpeg's display matrix describes, to the nearest quarter turn.

    A matrix (a, b, ...; c, d, ...; ...) moves the pixel at column x and row y to (ax + cy, bx + dy).
    """
    if matrix is None or len(matrix) < 36:
        return Orientation()
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transposed=True, mirrored=c < 0, flipped=b < 0)
    return Orientation(mirrored=a < 0, flipped=d < 0)
