"""Crop, flip and colours of a training view: drawn by a worker, and made by it or, for a whole batch, on the device."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from modalities.image.colour import LUMINANCE, ColourConfig, ColourMap, coloured, random_colours
from modalities.image.views import Box, cropped, random_box

_BOX, _MIRRORED, _GREY, _MATRIX = slice(0, 4), 4, 5, slice(6, 15)
_UNCHANGED = ColourMap(torch.eye(3), 0.0)


@dataclass(frozen=True)
class ViewParameters:
    """What a view shows of a stored image."""

    box: Box
    mirrored: bool
    colours: ColourMap | None

    def view(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """The view: uint8 [3, H, W], size (h, w) -> uint8 [3, h, w]."""
        view = cropped(image, self.box, self.mirrored, size)
        return view if self.colours is None else coloured(view, self.colours)

    def as_tensor(self) -> Tensor:
        """All of it for `views_on_device`: float32 [15]."""
        colours = self.colours or _UNCHANGED
        return torch.tensor([*self.box, self.mirrored, colours.grey, *colours.matrix.flatten().tolist()])


def draw(
    stored: tuple[int, int],
    scale: tuple[float, float],
    aspect: tuple[float, float],
    flip: bool,
    colour: ColourConfig | None,
    generator: Generator,
) -> ViewParameters:
    """A random view of an image with `stored` rows and columns; see `random_box` and `ColourConfig`."""
    box, mirrored = random_box(*stored, scale, aspect, flip, generator)
    return ViewParameters(box, mirrored, None if colour is None else random_colours(colour, generator))


class UncroppedView(NamedTuple):
    """A stored image, uint8 [3, H, W], and what a view of it shows, [15]; a batch has one more axis in front."""

    image: Tensor
    parameters: Tensor


class UncroppedLocalView(NamedTuple):
    """The same for a smaller view; its type tells `to_network` the size."""

    image: Tensor
    parameters: Tensor


def views_on_device(images: Tensor, parameters: Tensor, size: tuple[int, int], coloured: bool = True) -> Tensor:
    """The views of a batch: uint8 [B, 3, H, W], [B, 15], size (h, w) -> float32 [B, 3, h, w] from 0 to 255.

    The same as `ViewParameters.view` of each, but for rounding. Resizing is two products with the weights of the
    antialiased bilinear filter, so one operation serves images with any boxes. coloured: whether colours may change.
    """
    with torch.autocast(images.device.type, enabled=False):
        top, left, height, width = parameters[:, _BOX].unbind(1)
        rows = _resize_weights(top, height, images.shape[-2], size[0], torch.zeros_like(top))
        columns = _resize_weights(left, width, images.shape[-1], size[1], parameters[:, _MIRRORED])
        planar = images.to(torch.float32, memory_format=torch.contiguous_format).flatten(1, 2)  # [B, 3 * H, W]
        # Both passes end with whole numbers, halves rounded up, as those of torch's kernel of bytes.
        coarse, rest = _exact_parts(columns)
        narrow = (planar @ coarse.mT + planar @ rest.mT).add_(0.5).floor_().unflatten(1, (3, -1))  # [B, 3, H, w]
        coarse, rest = _exact_parts(rows.unsqueeze(1))
        views = (coarse @ narrow + rest @ narrow).add_(0.5).floor_()
        return _coloured(views, parameters) if coloured else views


def _exact_parts(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Two terms of weights, whose products with whole numbers up to 255 add up to that of fp32 on any device.

    GPUs may round the inputs of a product to TF32 (and CPUs to bf16): numbers and first term keep their eight bits.
    """
    coarse = weights.bfloat16().float()
    return coarse, weights - coarse


def _resize_weights(start: Tensor, length: Tensor, stored: int, wanted: int, mirrored: Tensor) -> Tensor:
    """Weights of `stored` pixels in each of `wanted`, for a part of each image: 3 times [B] -> [B, wanted, stored]."""
    start, length, mirrored = (values.view(-1, 1, 1) for values in (start, length, mirrored))
    step = length / wanted  # stored pixels a pixel of the view
    centres = torch.arange(wanted, device=start.device).view(-1, 1) + 0.5
    centres = torch.where(mirrored > 0, wanted - centres, centres) * step  # [B, wanted, 1]
    pixels = torch.arange(stored, device=start.device) - start  # [B, 1, stored], from the start of the part
    weights = (1 - (pixels + 0.5 - centres).abs() / step.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixels >= 0) & (pixels < length))
    return weights / weights.sum(dim=2, keepdim=True)


def _coloured(views: Tensor, parameters: Tensor) -> Tensor:
    """Views in other colours: [B, 3, h, w], [B, 15] -> [B, 3, h, w]."""
    red, green, blue = views.mean((2, 3)).unbind(1)
    luminance = LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue  # numbers: a GPU waits for no tensor
    coarse, rest = _exact_parts(parameters[:, _MATRIX].unflatten(1, (3, 3)))
    mixed = torch.baddbmm((parameters[:, _GREY] * luminance).view(-1, 1, 1), coarse, views.flatten(2))
    return mixed.baddbmm_(rest, views.flatten(2)).round_().clamp_(0, 255).view_as(views)
