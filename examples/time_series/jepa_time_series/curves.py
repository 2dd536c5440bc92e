"""Windows as pictures: one row per channel with its curve; missing channels are grey."""

import torch
from torch import Tensor

from jepa_time_series.embedding import View

_HEIGHT, _WIDTH = 24, 2  # pixels per channel, and per sample
_PAPER, _ABSENT = 255, 150
_INKS = torch.tensor([(200, 60, 40), (30, 130, 60), (40, 80, 190), (140, 70, 160)], dtype=torch.uint8)


def picture(view: View) -> Tensor:
    """Values [C, T] and present [C] -> uint8 [24 C, 2 T, 3], each channel scaled to its own range."""
    values, present = view
    rows = [curve(one) if valid else blank(len(one)) for one, valid in zip(values, present, strict=True)]
    drawn = torch.stack(rows)  # bool [C, H, W], True for ink
    inks = _INKS[torch.arange(len(values)) % len(_INKS)][:, None, None]  # [C, 1, 1, 3]
    paper = torch.where(present, _PAPER, _ABSENT).to(torch.uint8)[:, None, None, None]
    return torch.where(drawn.unsqueeze(-1), inks, paper).flatten(0, 1)


def curve(values: Tensor) -> Tensor:
    """Ink of a line through values [T]: bool [24, 2 T], top row first."""
    low, high = values.min(), values.max()
    levels = (high - values) / (high - low).clamp_min(1e-6) * (_HEIGHT - 3) + 1  # from the top, with a margin
    moments = torch.nn.functional.interpolate(levels[None, None], scale_factor=_WIDTH, mode="linear")[0, 0]
    before = torch.cat((moments[:1], moments[:-1]))
    top, bottom = torch.minimum(moments, before).floor(), torch.maximum(moments, before).ceil()
    row = torch.arange(_HEIGHT).unsqueeze(1)
    return (row >= top) & (row <= bottom)


def blank(moments: int) -> Tensor:
    """No ink: bool [24, 2 T]."""
    return torch.zeros(_HEIGHT, _WIDTH * moments, dtype=torch.bool)
