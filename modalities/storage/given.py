"""Images and clips that a caller gives as arrays or Pillow images -> 8-bit RGB tensors."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from jepa.data.given import ValueRange
from modalities.storage.images import image_tensor
from modalities.storage.pixels import PixelSettings


def given_pixels(given: Any, axes: int, value_range: ValueRange, pixels: PixelSettings) -> Tensor:
    """A Pillow image, upright, or an array of pixels -> uint8 [..., 3, H, W], RGB, of `axes` axes.

    An array has its colours (1, 3 or 4 with opacity) last or before height and width, or none if it is grey. As in
    files, transparent pixels become white, unless `data.bands` is set. Floats are scaled from `value_range`; integers
    as in files of that type, which are uint8 and uint16 unless `data.value_range` is set. Raises ValueError.
    """
    if isinstance(given, Image.Image):
        if axes != 3:
            raise ValueError("a Pillow image is one picture; a video is a path, or an array [T, H, W, 3]")
        return image_tensor(ImageOps.exif_transpose(given), pixels)
    values = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    frames = "T, " * (axes - 3)
    if values.dtype.kind not in "uifb" or values.ndim not in (axes - 1, axes) or 0 in values.shape:
        raise ValueError(
            f"{values.dtype} {list(values.shape)} is no picture; allowed are arrays of numbers [{frames}H, W, 3], "
            f"[{frames}3, H, W] and [{frames}H, W]"
        )
    rows = _rows(values, axes)
    if rows.shape[-1] == 4 and not pixels.bands:
        stored = _stored(rows, value_range, pixels)
        on_white = [image_tensor(pixels.to_image(one)) for one in (stored if axes == 4 else stored[None])]
        return torch.stack(on_white) if axes == 4 else on_white[0]
    colours = pixels.to_8_bit(_stored(rows[..., :3], value_range, pixels))
    planes = np.moveaxis(colours if colours.shape[-1] == 3 else np.repeat(colours, 3, axis=-1), -1, -3)
    return torch.from_numpy(np.array(planes))


def _rows(values: NDArray[Any], axes: int) -> NDArray[Any]:
    """[..., H, W, C], [..., C, H, W] or [..., H, W] -> [..., H, W, C]."""
    if values.ndim == axes - 1:
        if values.shape[-1] in (3, 4):
            raise ValueError(f"an array {list(values.shape)} lacks an axis, as its last one holds colours; give a list")
        return values[..., None]
    if values.shape[-1] not in (1, 3, 4):
        if values.shape[-3] not in (1, 3, 4):
            raise ValueError(f"an array {list(values.shape)} has no axis of 1, 3 or 4 colours")
        return np.moveaxis(values, -3, -1)
    return values


def _stored(values: NDArray[Any], value_range: ValueRange, pixels: PixelSettings) -> NDArray[Any]:
    """The values as in files: uint8, or integers that `pixels` scales."""
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind != "f":
        if values.dtype not in (np.uint8, np.uint16) and pixels.value_range is None:
            raise ValueError(
                f"pixels of {values.dtype} may mean anything; give uint8 or uint16, or floats with value_range"
            )
        return values
    black, white = value_range
    if not black < white:
        raise ValueError(f"value_range goes from black to white, so {black:g} must be less than {white:g}")
    low, high = values.min(), values.max()
    if not (black <= low and high <= white):
        raise ValueError(
            f"floats from {low:g} to {high:g} do not lie in value_range {black:g} to {white:g}; set value_range to the "
            "values of black and white"
        )
    return np.rint((values - black) * (255 / (white - black))).astype(np.uint8)
