"""The mosaic of `jepa data check`: views of training samples as the network sees them, on one PNG."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from jepa.disk import replacing
from jepa.report.overlays import resize

_SIDE, _GAP = 160, 4  # pixels
_COLUMNS, _CLIPS, _FRAMES = 8, 12, 8


def write_mosaic(pictures: Sequence[Tensor], path: Path) -> int:
    """Write pictures in rows of 8; of moving ones, 12 rows of 8 evenly spaced frames -> number of pictures written.

    pictures: uint8 [H, W, 3], or [T, H, W, 3]. Raises WriteError.
    """
    from PIL import Image  # slow to import

    moving = pictures[0].dim() == 4
    shown = [resize(picture, _SIDE, _FRAMES) for picture in (pictures[:_CLIPS] if moving else pictures)]
    rows = shown if moving else [shown[first : first + _COLUMNS] for first in range(0, len(shown), _COLUMNS)]
    part = path.with_name(f".{path.name}.partial")
    with replacing(path, part):
        Image.fromarray(_page([list(row) for row in rows]).numpy()).save(part, "PNG")
    return len(shown)


def _page(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Pictures in rows, each in a cell of the same size -> uint8 [H, W, 3] on white."""
    height = max(picture.shape[0] for row in rows for picture in row) + _GAP
    width = max(picture.shape[1] for row in rows for picture in row) + _GAP
    page = torch.full((len(rows) * height + _GAP, max(map(len, rows)) * width + _GAP, 3), 255, dtype=torch.uint8)
    for number, row in enumerate(rows):
        for column, picture in enumerate(row):
            top, left = number * height + _GAP, column * width + _GAP
            page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return page
