"""Random colours of a view: brightness, contrast, saturation, hue and grey, as one matrix per view."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

Strength = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (BT.601)
_LUMINANCE = torch.tensor(LUMINANCE)
_TO_YIQ = torch.tensor([LUMINANCE, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = torch.linalg.inv(_TO_YIQ)


@dataclass(frozen=True, kw_only=True)
class ColourConfig:
    """Colours of a training view, drawn anew for each; by default as in SimCLR at half strength (Chen et al. 2020).

    probability: share of views whose colours change. brightness, contrast, saturation: factors are drawn from 1 - s to
    1 + s. hue: the largest turn, as a share of the colour circle. grey: share of views that become grey. Departs from
    SimCLR: the four changes are one linear map of the colours, without clamping in between, and the hue turns in YIQ.
    """

    probability: Probability = 0.8
    brightness: Strength = 0.4
    contrast: Strength = 0.4
    saturation: Strength = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    grey: Probability = 0.2


@dataclass(frozen=True)
class ColourMap:
    """A linear map of colours: `matrix` [3, 3] times the colour, plus `grey` times the mean luminance of the view."""

    matrix: Tensor
    grey: float


def random_colours(config: ColourConfig, generator: Generator) -> ColourMap | None:
    """The change of a view's colours; None for none. It always draws equally many numbers."""
    changed, greyed, *draws = torch.rand(6, generator=generator).tolist()
    changes, is_grey = changed < config.probability, greyed < config.grey
    if not (changes or is_grey):
        return None
    brightness, contrast, saturation, hue = (2 * draw - 1 if changes else 0.0 for draw in draws)
    brightness, contrast = 1 + brightness * config.brightness, 1 + contrast * config.contrast
    saturation = 0.0 if is_grey else 1 + saturation * config.saturation
    matrix = brightness * colour_matrix(saturation, 2 * math.pi * hue * config.hue)
    return ColourMap(contrast * matrix, (1 - contrast) * brightness)


def coloured(view: Tensor, colours: ColourMap) -> Tensor:
    """A view in other colours: uint8 [3, h, w] -> uint8 [3, h, w]."""
    pixels = view.flatten(1).float()  # [3, h * w]
    mean_grey = colours.grey * (_LUMINANCE @ pixels.mean(dim=1))
    mixed = torch.addmm(mean_grey.expand(3, 1), colours.matrix, pixels)
    return mixed.round_().clamp_(0, 255).to(torch.uint8).view_as(view)


def colour_matrix(saturation: float, angle: float) -> Tensor:
    """Matrix [3, 3] that scales the distance of colours from grey by `saturation` and turns their hue by `angle`."""
    cos, sin = saturation * math.cos(angle), saturation * math.sin(angle)
    turned = torch.tensor([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    matrix: Tensor = _FROM_YIQ @ turned @ _TO_YIQ
    return matrix
