"""Decodes stored images, in any format and pixel layout that Pillow reads, to 8-bit RGB tensors."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from jepa.modality import BadSampleError

# EPS would start Ghostscript on the user's data; Pillow recognises the others but has no decoder for them.
_REFUSED_FORMATS = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@cache
def image_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, in the order in which they are tried: the usual ones first."""
    Image.init()
    usual = ["JPEG", "PNG", "WEBP"]
    return tuple(usual + [name for name in Image.OPEN if name not in {*usual, *_REFUSED_FORMATS}])


@cache
def image_extensions() -> frozenset[str]:
    """File name endings of `image_formats`, in lower case and with the dot."""
    return frozenset(end for end, name in Image.registered_extensions().items() if name in image_formats())


def check_min_side(min_side: int) -> None:
    """Raise ValueError for a value that would make every image a bad sample in `decode_image`."""
    if min_side < 1:
        raise ValueError(f"min_side is {min_side}; at least 1 pixel is needed")


def decode_image(data: bytes | Path, min_side: int, name: str = "image in memory") -> Tensor:
    """An encoded image, or its path  ->  uint8 [3, H, W], RGB, upright; the first frame of an animation.

    A large JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is much faster; both sides stay >= `min_side`.
    Transparent pixels become white. Channels are innermost in memory, which makes resizing fastest.
    Every failure is a BadSampleError that names the path, or `name` for bytes.
    """
    stream: AbstractContextManager[IO[bytes]]
    try:
        stream = data.open("rb") if isinstance(data, Path) else nullcontext(BytesIO(data))
        with stream as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata; only the pixels matter
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=image_formats()) as image:
                image.draft(None, (min_side, min_side))
                image.load()
                return image_tensor(_upright(image))
    except Exception as error:  # Pillow raises nearly any type for a broken file.
        raise BadSampleError(str(data) if isinstance(data, Path) else name, _reason(error)) from error


def image_tensor(image: Image.Image) -> Tensor:
    """A Pillow image of any mode  ->  uint8 [3, H, W], RGB, on white; more than 8 bits are scaled down to 8."""
    if 0 in image.size:
        raise ValueError(f"no pixels: {image.width} x {image.height}")
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _to_8_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey values of more than 8 bits [H, W]  ->  uint8 [H, W].

    Black and white are 0 and 65535 for integers, 0 and 1 for floats; if any value lies outside, they are the least and
    the greatest value. Infinity and NaN count as 0.
    """
    grey = np.where(np.isfinite(values), values, 0).astype(np.float64)
    black, white = 0.0, 1.0 if values.dtype.kind == "f" else 65535.0
    if grey.min() < black or grey.max() > white:
        black, white = grey.min(), grey.max()
    return np.rint((grey - black) * (255 / (white - black))).astype(np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # The pixels have been decoded already; unreadable EXIF does not matter.
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _reason(error: Exception) -> str:
    match error:
        case UnidentifiedImageError():
            return "not an image of a known format"
        case OSError(strerror=str(reason)):
            return reason
        case _:
            return str(error) or type(error).__name__
