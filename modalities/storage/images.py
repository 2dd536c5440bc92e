"""Decodes stored images, in any format and pixel layout that Pillow reads, to 8-bit RGB tensors."""

import struct
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor
from torchvision.io import decode_png

from jepa.modality import BadSampleError
from modalities.storage.pixels import AS_STORED, PixelSettings
from modalities.storage.tiff import is_tiff, read_bands
from modalities.storage.value_ranges import is_observed

# EPS would start Ghostscript on the user's data; Pillow recognises the others but has no decoder for them.
_REFUSED_FORMATS = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
_HEIC = frozenset({".heic", ".heif", ".hif"})
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_HEIC_ADVICE = "pip install pillow-heif, or 'openjepa[heic]'"
_ORIENTATION_TAG = 0x0112
_JPEG = b"\xff\xd8\xff"
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Decode = Callable[..., Tensor]  # decode(path or contents, name=its name in messages) -> uint8 [3, H, W]


@cache
def image_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, in the order in which they are tried: the usual ones first.

    HEIC is among them where the package pillow-heif is installed.
    """
    Image.init()
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    usual = ["JPEG", "PNG", "WEBP"]
    return tuple(usual + [name for name in Image.OPEN if name not in {*usual, *_REFUSED_FORMATS}])


@cache
def image_extensions() -> frozenset[str]:
    """File name endings of `image_formats`, in lower case and with the dot."""
    formats = {*image_formats(), "MPO"}  # of stereo cameras and phones, opened as JPEG
    return frozenset(end for end, name in Image.registered_extensions().items() if name in formats)


def installable_extensions() -> tuple[tuple[str, str], ...]:
    """Endings of images that a further package would read, and the command that installs it."""
    return tuple((ending, _HEIC_ADVICE) for ending in sorted(_HEIC - image_extensions()))


def check_min_side(min_side: int) -> None:
    """Raise ValueError for a value that would make every image a bad sample in `decode_image`."""
    if min_side < 1:
        raise ValueError(f"min_side is {min_side}; at least 1 pixel is needed")


def decode_image(
    data: bytes | Path, min_side: int, name: str = "image in memory", pixels: PixelSettings = AS_STORED
) -> Tensor:
    """An encoded image, or its path  ->  uint8 [3, H, W], RGB, upright; the first frame of an animation.

    A large JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is much faster; both sides stay >= `min_side`.
    Transparent pixels become white. Channels are innermost in memory, which makes resizing fastest.
    Every failure is a BadSampleError that names the path, or `name` for bytes.
    """
    stream: AbstractContextManager[IO[bytes]]
    try:
        stream = data.open("rb") if isinstance(data, Path) else nullcontext(BytesIO(data))
        with stream as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about metadata; only the pixels matter
            return _decoded(file, min_side, pixels)
    except Exception as error:  # Pillow raises nearly any type for a broken file.
        raise BadSampleError(str(data) if isinstance(data, Path) else name, _reason(error)) from error


def _decoded(file: IO[bytes], min_side: int, pixels: PixelSettings) -> Tensor:
    header = file.read(16)
    if header.startswith(_JPEG) and not isinstance(file, BytesIO):  # else Pillow reads it in many small parts
        file = BytesIO(header + file.read())
    if is_tiff(header) and (found := read_bands(file, pixels)):
        image, orientation = found
        return image_tensor(_turned(image, orientation))
    with _opened(file, header) as image:
        image.draft(None, (min_side, min_side))
        pixels.check_size(*image.size)
        exact = pixels.value_range is not None or pixels.bands is not None or is_observed()
        if exact and _is_deep_colour_png(image):
            return image_tensor(_turned(pixels.to_image(_deep_png(file)), _orientation(image)))
        if isinstance(file, BytesIO) and pixels.bands is None and _orientation(image) not in _UPRIGHT:
            values = _jpeg(image, file)
            if values is not None:
                return torch.from_numpy(values).permute(2, 0, 1)
        image.load()
        return image_tensor(_turned(image, _orientation(image)), pixels)


def _opened(file: IO[bytes], header: bytes) -> ImageFile.ImageFile:
    """Like Image.open, but without its limit on the stored size, as a JPEG may be decoded reduced."""
    for name in image_formats():
        factory, accept = Image.OPEN[name]
        with suppress(SyntaxError, IndexError, TypeError, struct.error):  # as Image.open: another format may fit
            accepted = accept(header) if accept else True
            if accepted and not isinstance(accepted, str):
                file.seek(0)
                return factory(file, "")
    if header[4:8] == b"ftyp" and header[8:12] in _HEIC_BRANDS and "HEIF" not in image_formats():
        raise ValueError(f"a HEIC image; to read it: {_HEIC_ADVICE}")
    raise UnidentifiedImageError


@cache
def _decode_jpeg() -> Callable[..., NDArray[np.uint8]] | None:
    """libjpeg-turbo without Pillow's copies, where the package simplejpeg is installed; the pixels are the same."""
    with suppress(ImportError):
        decode: Callable[..., NDArray[np.uint8]] = import_module("simplejpeg").decode_jpeg
        return decode
    return None


def _jpeg(image: ImageFile.ImageFile, file: BytesIO) -> NDArray[np.uint8] | None:
    """Pixels [H, W, 3] of an opened JPEG at the size that `draft` chose; None if Pillow has to decode the file.

    Pillow decodes what is damaged, and decides whether that is an error.
    """
    decode = _decode_jpeg()
    if decode is None or image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    with suppress(ValueError):
        values = decode(file.getbuffer(), "RGB", min_height=image.height, min_width=image.width)
        return values if values.shape[:2] == (image.height, image.width) else None
    return None


def _is_deep_colour_png(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow would cut 16-bit colours to their upper 8 bits."""
    modes: list[Any] = [tile[3] for tile in image.tile]
    return image.format == "PNG" and bool(modes) and modes[0] in ("RGB;16B", "RGBA;16B", "LA;16B")


def _deep_png(file: IO[bytes]) -> NDArray[Any]:
    """The bands of a PNG of 16 bits per band: uint16 [H, W, S]."""
    file.seek(0)
    stored = decode_png(torch.frombuffer(bytearray(file.read()), dtype=torch.uint8))  # [S, H, W]
    values: NDArray[Any] = stored.permute(1, 2, 0).numpy()
    return values


def image_tensor(image: Image.Image, pixels: PixelSettings = AS_STORED) -> Tensor:
    """A Pillow image of any mode  ->  uint8 [3, H, W], RGB, on white; more than 8 bits are scaled down to 8."""
    if 0 in image.size:
        raise ValueError(f"no pixels: {image.width} x {image.height}")
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(pixels.to_8_bit(np.asarray(image)))
    if pixels.bands:
        stored = image if image.mode in ("L", "LA", "RGBA", "CMYK") else image.convert("RGB")
        image = pixels.to_image(np.atleast_3d(np.asarray(stored)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return torch.from_numpy(np.array(image if image.mode == "RGB" else image.convert("RGB"))).permute(2, 0, 1)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # The pixels matter; unreadable EXIF does not.
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _reason(error: Exception) -> str:
    match error:
        case UnidentifiedImageError():
            return "not an image of a known format"
        case OSError(strerror=str(reason)):
            return reason
        case _:
            return str(error) or type(error).__name__
