"""Crops of stored images, and their normalisation for the networks."""

import math
import platform
from functools import cache

import numpy as np
import torch
from torch import Generator, Tensor
from torch.backends import cpu
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import resize_image

from modalities.storage.pixels import NormalisationSettings

_TRIES = 10
Box = tuple[int, int, int, int]  # top, left, height, width
Statistics = tuple[float, float, float]  # of red, green and blue, white being 1
_MEAN, _STD = NormalisationSettings().pixel_mean, NormalisationSettings().pixel_std


def random_resized_crop(
    image: Tensor,
    size: tuple[int, int],
    scale: tuple[float, float],
    aspect: tuple[float, float],
    flip: bool,
    generator: Generator,
) -> Tensor:
    """A random crop of an image, resized with antialiasing (Szegedy et al. 2015).

    Image uint8 [3, H, W], size (h, w) -> uint8 [3, h, w]. See `random_box`.
    """
    box, mirrored = random_box(image.shape[-2], image.shape[-1], scale, aspect, flip, generator)
    return cropped(image, box, mirrored, size)


def cropped(image: Tensor, box: Box, mirrored: bool, size: tuple[int, int]) -> Tensor:
    """As `resized_crop`, and mirrored if it is `mirrored`."""
    view = resized_crop(image, box, size)
    return view.flip(-1) if mirrored else view


def random_box(
    height: int, width: int, scale: tuple[float, float], aspect: tuple[float, float], flip: bool, generator: Generator
) -> tuple[Box, bool]:
    """A random part of an image, and whether it is mirrored: with probability 1/2 if `flip`.

    scale: range of the area share. aspect: range of width / height. It always draws equally many numbers.
    """
    draws = torch.rand(4 * _TRIES + 1, generator=generator, dtype=torch.float64).tolist()
    return _first_fitting(height, width, scale, aspect, draws), flip and draws[-1] < 0.5


def center_view(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest central crop with the aspect of `size`, resized: uint8 [3, H, W], size (h, w) -> uint8 [3, h, w]."""
    height, width = image.shape[-2:]
    crop_height, crop_width = largest_box(height, width, size)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return resized_crop(image, (top, left, crop_height, crop_width), size)


def resized_crop(image: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """A part of an image, resized with antialiasing: uint8 [..., 3, H, W], size (h, w) -> uint8 [..., 3, h, w]."""
    top, left, height, width = box
    part = image[..., top : top + height, left : left + width]
    if (height, width) == size:
        return part
    if not _has_byte_kernel():
        view: Tensor = resize_image(part, list(size), antialias=True)
        return view
    if part.stride(-3) == 1:  # the kernel is fastest where innermost channels are dense
        part = part.movedim(-3, -1).contiguous().movedim(-1, -3)
    batch = part if part.ndim == 4 else part.movedim(0, 2).unsqueeze(0).movedim(3, 1)  # in one order for every crop
    resized = interpolate(batch, size, mode="bilinear", antialias=True)
    return resized if part.ndim == 4 else resized[0]


@cache
def _has_byte_kernel() -> bool:
    """Whether torch resizes uint8 fast on this processor; torchvision decides so too, but slows small images down."""
    return cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")


def stored_side(size: tuple[int, int], scale: tuple[float, float]) -> int:
    """Pixels needed on the shorter side so that even the smallest crop is not enlarged."""
    return math.ceil(min(size) / math.sqrt(scale[0]))


def largest_box(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the largest part of an image with the aspect of `size` (h, w)."""
    ratio = size[1] / size[0]
    return min(height, max(1, round(width / ratio))), min(width, max(1, round(height * ratio)))


def normalise(image: Tensor, mean: Statistics = _MEAN, std: Statistics = _STD, axis: int = -3) -> Tensor:
    """Pixels from 0 to 255, [..., 3, H, W] -> float32 of zero mean and unit variance, by default for ImageNet.

    axis: of the colours. Numbers instead of tensors of statistics, which a GPU would wait for.
    """
    # One after another: innermost channels make sums slow.
    planar = image.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    for channel, centre, scale in zip(planar.unbind(axis), _of_255(mean), _of_255(std), strict=True):
        channel.sub_(centre).div_(scale)
    return planar


def normalise_bytes(images: Tensor, mean: Statistics = _MEAN, std: Statistics = _STD, axis: int = -3) -> Tensor:
    """As `normalise` for uint8; floats are normalised already and stay as they are."""
    return normalise(images, mean, std, axis) if images.dtype == torch.uint8 else images


def denormalise(image: Tensor, mean: Statistics = _MEAN, std: Statistics = _STD) -> Tensor:
    """Inverse of `normalise`: float [..., 3, H, W] -> uint8."""
    scale, centre = (torch.tensor(_of_255(values), device=image.device).view(3, 1, 1) for values in (std, mean))
    return (image * scale + centre).round().clamp(0, 255).to(torch.uint8)


@cache
def _of_255(values: Statistics) -> list[float]:
    """Statistics of 8-bit values, as float32; by NumPy, as tensors of a dry run have no values."""
    return [float(255 * np.float32(value)) for value in values]


def _first_fitting(
    height: int, width: int, scale: tuple[float, float], aspect: tuple[float, float], draws: list[float]
) -> Box:
    """Top, left, height and width of the first of ten random boxes that fits, or else of the nearest central one."""
    shortest, longest = math.log(aspect[0]), math.log(aspect[1])
    for first in range(0, 4 * _TRIES, 4):
        share, shape, down, right = draws[first : first + 4]
        area = height * width * (scale[0] + share * (scale[1] - scale[0]))
        ratio = math.exp(shortest + shape * (longest - shortest))
        crop_height, crop_width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < crop_height <= height and 0 < crop_width <= width:
            top, left = int(down * (height - crop_height + 1)), int(right * (width - crop_width + 1))
            return top, left, crop_height, crop_width
    ratio = min(max(width / height, aspect[0]), aspect[1])
    crop_height, crop_width = min(height, max(1, round(width / ratio))), min(width, max(1, round(height * ratio)))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
