"""TIFF files with bands that Pillow cannot read, through tifffile."""

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from modalities.storage.pixels import PixelSettings
from modalities.storage.value_ranges import is_observed

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _EXTRA = 256, 257, 258, 262, 274, 277, 338
_COLOURS = {2: 3, 5: 4, 6: 3, 8: 3}  # samples of RGB, CMYK, YCbCr and Lab; others have one
_GREY_OR_RGB = (1, 2)
_ALPHA = (1, 2)  # values of ExtraSamples that mean transparency
_PILLOW_BITS = {(8,) * 3, (8,) * 4, (16,) * 3, (16,) * 4}


def is_tiff(header: bytes) -> bool:
    """Whether a file that starts with these bytes is a TIFF or BigTIFF file."""
    return header[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_bands(file: IO[bytes], settings: PixelSettings) -> tuple[Image.Image, int] | None:
    """An 8-bit image and its EXIF orientation; None if Pillow reads the file as well.

    Raises ValueError if the file has more bands than colours and `bands` chooses none, or if tifffile is missing.
    """
    tags = _tags(file)
    samples, bits = tags.get(_SAMPLES, 1), tags.get(_BITS, (1,))
    bits = tuple(bits) if isinstance(bits, tuple | list) else (bits,)
    extra = tuple(tags.get(_EXTRA, ()))
    photometric = tags.get(_PHOTOMETRIC, 1)
    named = _COLOURS.get(photometric, 1) + (extra[:1] in {(kind,) for kind in _ALPHA})
    if settings.bands is None and samples > named:
        raise ValueError(
            f"{samples} bands, of which the file does not say which are colours; "
            "data.bands chooses three of them, or one, such as data.bands=[1,2,3]"
        )
    exact = settings.value_range is not None or is_observed() or bits not in _PILLOW_BITS
    if samples == 1 or not (settings.bands or (exact and max(bits) > 8 and photometric in _GREY_OR_RGB)):
        return None
    settings.check_size(int(tags.get(_WIDTH, 0)), int(tags.get(_HEIGHT, 0)))
    return settings.to_image(_stored(file, samples)), int(tags.get(_ORIENTATION, 1))


def _tags(file: IO[bytes]) -> Any:
    file.seek(0)
    header = file.read(8)
    if header[2:3] == b"+" or header[3:4] == b"+":
        header += file.read(8)
    tags = ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    file.seek(0)
    return tags


def _stored(file: IO[bytes], samples: int) -> NDArray[Any]:
    """All bands of the first image: [H, W, S]."""
    try:
        import tifffile
    except ImportError as error:
        raise ValueError(
            f"{samples} bands, which Pillow cannot read; tifffile can: pip install 'openjepa[tiff]'"
        ) from error
    with tifffile.TiffFile(file) as stored:
        values: NDArray[Any] = stored.pages[0].asarray()
        return values if stored.pages[0].axes.endswith("S") else np.moveaxis(values, 0, -1)
