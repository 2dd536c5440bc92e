"""Overlays on pictures, still ones [H, W, 3] and moving ones [T, H, W, 3]: masks, colours and heat maps of tokens.

Cells are values of tokens on the grid, which covers the picture evenly: [rows, columns, ...], for moving pictures
[slots, rows, columns, ...].
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCKS = ((255, 176, 0), (0, 160, 230), (230, 70, 130), (60, 190, 90), (150, 100, 240), (240, 110, 50))
_HEAT = torch.tensor([(13, 8, 60), (114, 20, 130), (200, 60, 90), (246, 140, 40), (252, 240, 150)]).float()


def with_context(picture: Tensor, context: Tensor) -> Tensor:
    """Hatch the hidden part: picture, bool cells of the context -> picture."""
    return _per_frame(_hatch, picture, [context])


def with_targets(picture: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """Fade the picture, tint and outline each block: picture, bool cells of each block -> picture."""
    return _per_frame(_outline, picture, blocks)


def upsample(cells: Tensor, picture: Tensor) -> Tensor:
    """Repeat each cell over its part of a picture: cells of C values -> [H, W, C], or [T, H, W, C]."""
    return _per_frame(_upsample, picture, [cells])


def with_heat(picture: Tensor, values: Tensor, known: Tensor) -> Tensor:
    """Heat map of float cells from 0 (dark) to 1 (bright); the picture stays where the bool cells `known` are false."""
    return _per_frame(_heat, picture, [values, known])


def resize(picture: Tensor, side: int, max_frames: int) -> Tensor:
    """Scale the longer side to `side` pixels; of more than `max_frames` frames, keep evenly spaced ones."""
    frames = picture if picture.dim() == 4 else picture[None]
    if len(frames) > max_frames:
        frames = frames[torch.arange(max_frames) * len(frames) // max_frames]
    height, width = picture.shape[-3:-1]
    size = [max(1, round(side * length / max(height, width))) for length in (height, width)]
    scaled = F.interpolate(frames.permute(0, 3, 1, 2).float(), size, mode="bicubic", antialias=True)
    drawn = scaled.permute(0, 2, 3, 1).round().clamp(0, 255).byte().contiguous()
    return drawn if picture.dim() == 4 else drawn[0]


def _per_frame(draw: Callable[[Tensor, Sequence[Tensor]], Tensor], picture: Tensor, cells: Sequence[Tensor]) -> Tensor:
    if picture.dim() == 3:
        return draw(picture, cells)
    count = len(picture)
    return torch.stack(
        [draw(frame, [cell[index * len(cell) // count] for cell in cells]) for index, frame in enumerate(picture)]
    )


def _hatch(picture: Tensor, cells: Sequence[Tensor]) -> Tensor:
    visible = _upsample(picture, [cells[0].unsqueeze(-1)])
    diagonals = torch.arange(picture.shape[0]).unsqueeze(-1) + torch.arange(picture.shape[1])  # [H, W]
    hatch = torch.where(diagonals % 8 < 2, 160, 205).byte().unsqueeze(-1)
    return torch.where(visible, picture, hatch)


def _outline(picture: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    drawn = _fade(picture, 0.3).float()
    areas = [_upsample(picture, [block.unsqueeze(-1)]) for block in blocks]
    colours = [torch.tensor(_BLOCKS[index % len(_BLOCKS)]).float() for index in range(len(blocks))]
    for area, colour in zip(areas, colours, strict=True):
        drawn = torch.where(area, 0.65 * picture + 0.35 * colour, drawn)
    for area, colour in zip(areas, colours, strict=True):
        outside = F.pad((~area[..., 0]).float()[None, None], (2, 2, 2, 2), value=1.0)
        edge = area[..., 0] & (F.max_pool2d(outside, 5, stride=1)[0, 0] > 0)
        drawn[edge] = colour
    return drawn.round().byte()


def _heat(picture: Tensor, cells: Sequence[Tensor]) -> Tensor:
    values, known = (_upsample(picture, [cell.unsqueeze(-1)]) for cell in cells)  # [H, W, 1]
    level = values.clamp(0, 1) * (len(_HEAT) - 1)
    below = level.floor().long().clamp(max=len(_HEAT) - 2)
    share = level - below
    colour = _HEAT[below[..., 0]] * (1 - share) + _HEAT[below[..., 0] + 1] * share
    return torch.where(known, 0.25 * _fade(picture, 1.0).float() + 0.75 * colour, picture.float()).round().byte()


def _upsample(picture: Tensor, cells: Sequence[Tensor]) -> Tensor:
    """[rows, columns, C] over [H, W, 3] -> [H, W, C]."""
    height, width = picture.shape[:2]
    cell = cells[0]
    rows, columns = torch.arange(height) * len(cell) // height, torch.arange(width) * cell.shape[1] // width
    return cell[rows][:, columns].contiguous()


def _fade(picture: Tensor, contrast: float) -> Tensor:
    """Grey with reduced contrast: uint8 [H, W, 3] -> uint8 [H, W, 3]."""
    grey = picture.float().mean(dim=-1, keepdim=True).expand_as(picture)
    return (contrast * grey + (1 - contrast) * 128).round().byte()
