"""What is drawn over pictures, still ones [H, W, 3] and moving ones [T, H, W, 3]: masks, colours and heat of tokens.

Cells are values of tokens on the grid, which lies evenly over the picture: [rows, columns, ...], of moving pictures
[moments, rows, columns, ...].
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCKS = ((255, 176, 0), (0, 160, 230), (230, 70, 130), (60, 190, 90), (150, 100, 240), (240, 110, 50))
_HEAT = torch.tensor([(13, 8, 60), (114, 20, 130), (200, 60, 90), (246, 140, 40), (252, 240, 150)]).float()


def with_context(picture: Tensor, context: Tensor) -> Tensor:
    """Hatch what is hidden: a picture, bool cells -> a picture."""
    return _each_moment(_hatched, picture, [context])


def with_targets(picture: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """Fade all but the blocks, tint and outline each: a picture, bool cells of each -> a picture."""
    return _each_moment(_outlined, picture, blocks)


def spread(cells: Tensor, picture: Tensor) -> Tensor:
    """Every cell over its part of a picture: cells of C values -> [H, W, C], of moving pictures [T, H, W, C]."""
    return _each_moment(_laid, picture, [cells])


def with_heat(picture: Tensor, values: Tensor, known: Tensor) -> Tensor:
    """Values from 0 (dark) to 1 (bright) over a picture, which stays where there are none.

    values, known: cells, float and bool.
    """
    return _each_moment(_heated, picture, [values, known])


def resized(picture: Tensor, side: int, most: int) -> Tensor:
    """Scale so that the longer side has this many pixels; of more moments than `most` leave some out, evenly."""
    moments = picture if picture.dim() == 4 else picture[None]
    if len(moments) > most:
        moments = moments[torch.arange(most) * len(moments) // most]
    height, width = picture.shape[-3:-1]
    size = [max(1, round(side * length / max(height, width))) for length in (height, width)]
    scaled = F.interpolate(moments.permute(0, 3, 1, 2).float(), size, mode="bicubic", antialias=True)
    drawn = scaled.permute(0, 2, 3, 1).round().clamp(0, 255).byte().contiguous()
    return drawn if picture.dim() == 4 else drawn[0]


def _each_moment(
    draw: Callable[[Tensor, Sequence[Tensor]], Tensor], picture: Tensor, cells: Sequence[Tensor]
) -> Tensor:
    if picture.dim() == 3:
        return draw(picture, cells)
    count = len(picture)
    return torch.stack(
        [draw(moment, [cell[place * len(cell) // count] for cell in cells]) for place, moment in enumerate(picture)]
    )


def _hatched(picture: Tensor, cells: Sequence[Tensor]) -> Tensor:
    visible = _laid(picture, [cells[0].unsqueeze(-1)])
    diagonals = torch.arange(picture.shape[0]).unsqueeze(-1) + torch.arange(picture.shape[1])  # [H, W]
    hatch = torch.where(diagonals % 8 < 2, 160, 205).byte().unsqueeze(-1)
    return torch.where(visible, picture, hatch)


def _outlined(picture: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    drawn = _faded(picture, 0.3).float()
    areas = [_laid(picture, [block.unsqueeze(-1)]) for block in blocks]
    colours = [torch.tensor(_BLOCKS[place % len(_BLOCKS)]).float() for place in range(len(blocks))]
    for area, colour in zip(areas, colours, strict=True):
        drawn = torch.where(area, 0.65 * picture + 0.35 * colour, drawn)
    for area, colour in zip(areas, colours, strict=True):
        outside = F.pad((~area[..., 0]).float()[None, None], (2, 2, 2, 2), value=1.0)
        edge = area[..., 0] & (F.max_pool2d(outside, 5, stride=1)[0, 0] > 0)
        drawn[edge] = colour
    return drawn.round().byte()


def _heated(picture: Tensor, cells: Sequence[Tensor]) -> Tensor:
    values, known = (_laid(picture, [cell.unsqueeze(-1)]) for cell in cells)  # [H, W, 1]
    place = values.clamp(0, 1) * (len(_HEAT) - 1)
    below = place.floor().long().clamp(max=len(_HEAT) - 2)
    share = place - below
    colour = _HEAT[below[..., 0]] * (1 - share) + _HEAT[below[..., 0] + 1] * share
    return torch.where(known, 0.25 * _faded(picture, 1.0).float() + 0.75 * colour, picture.float()).round().byte()


def _laid(picture: Tensor, cells: Sequence[Tensor]) -> Tensor:
    """[rows, columns, C] over [H, W, 3] -> [H, W, C]."""
    height, width = picture.shape[:2]
    cell = cells[0]
    rows, columns = torch.arange(height) * len(cell) // height, torch.arange(width) * cell.shape[1] // width
    return cell[rows][:, columns].contiguous()


def _faded(picture: Tensor, kept: float) -> Tensor:
    """Grey of low contrast: uint8 [H, W, 3] -> uint8 [H, W, 3]."""
    grey = picture.float().mean(dim=-1, keepdim=True).expand_as(picture)
    return (kept * grey + (1 - kept) * 128).round().byte()
