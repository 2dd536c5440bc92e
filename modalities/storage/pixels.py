"""Settings of decoding that all modalities share, and the conversion of stored bands to 8-bit images."""

from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, Field, FiniteFloat, PositiveFloat, PositiveInt

from modalities.storage.value_ranges import observe


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if not ends[0] < ends[1]:
        raise ValueError(f"value_range goes from black to white, so {ends[0]} must be less than {ends[1]}")
    return ends


def _one_or_three(bands: tuple[int, ...]) -> tuple[int, ...]:
    if len(bands) not in (1, 3):
        raise ValueError(f"bands names one band (grey) or three (red, green, blue), not {len(bands)}")
    return bands


Mean = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class NormalisationSettings:
    """Normalisation of pixels before the networks.

    pixel_mean, pixel_std: mean and standard deviation of red, green and blue, white being 1; by default ImageNet's.
    """

    pixel_mean: tuple[Mean, Mean, Mean] = (0.485, 0.456, 0.406)
    pixel_std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class PixelSettings:
    """How image files are decoded, wherever a modality reads them.

    max_megapixels: a larger image is a bad sample; a JPEG is decoded at reduced size, and that size counts.
    value_range: stored values that become black and white, in images of more than 8 bits per band; null takes 0 and
    65535 for integers and 0 and 1 for floats, or an image's own extremes if values lie outside. bands: numbers, from 1,
    of the stored bands that become red, green and blue, or of one that becomes grey; null takes the file's colours and
    refuses files with more bands than colours.
    """

    max_megapixels: PositiveFloat = 200.0
    value_range: Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_rising)] | None = None
    bands: Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(_one_or_three)] | None = None

    def check_size(self, width: int, height: int) -> None:
        """Raise ValueError if an image of this size must not be decoded."""
        if width < 1 or height < 1:
            raise ValueError(f"no pixels: {width} x {height}")
        if width * height > self.max_megapixels * 1e6:
            raise ValueError(
                f"{width} x {height} pixels are {width * height / 1e6:.0f} megapixels; "
                f"data.max_megapixels={self.max_megapixels:g} allows no more"
            )

    def to_image(self, values: NDArray[Any]) -> Image.Image:
        """Stored bands [H, W, S] -> an 8-bit image of those that `bands` names, or of the colours and transparency."""
        if self.bands:
            if max(self.bands) > values.shape[-1]:
                raise ValueError(f"data.bands asks for band {max(self.bands)}, but the file has {values.shape[-1]}")
            pixels = self.to_8_bit(values[..., [band - 1 for band in self.bands]])
        else:
            colours = 1 if values.shape[-1] < 3 else 3
            opacity = _to_8_bit(values[..., colours : colours + 1], None)
            pixels = np.concatenate([self.to_8_bit(values[..., :colours]), opacity], axis=-1)
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))

    def to_8_bit(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Stored values, of any shape -> uint8; values outside `value_range` are clipped.

        Infinity and NaN count as 0.
        """
        if self.value_range is None and values.dtype != np.uint8:
            observe(values, _white(values))
        return _to_8_bit(values, self.value_range)


AS_STORED = PixelSettings()


def _to_8_bit(values: NDArray[Any], value_range: tuple[float, float] | None) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16 and values.size > 2**16:  # a table of all values saves memory and time
        return np.take(_to_8_bit(np.arange(2**16), value_range), values)
    grey = np.where(np.isfinite(values), values, 0).astype(np.float64)
    if value_range is not None:
        black, white = value_range
        grey = grey.clip(black, white)
    else:
        black, white = 0.0, _white(values)
        if grey.size and (grey.min() < black or grey.max() > white):
            black, white = float(grey.min()), float(grey.max())
    return np.rint((grey - black) * (255 / ((white - black) or 1))).astype(np.uint8)


def _white(values: NDArray[Any]) -> float:
    return 1.0 if values.dtype.kind == "f" else 65535.0


def pixel_effects(source: str | None) -> dict[str, str]:
    """The settings of PixelSettings as those without effect, for a source that decodes no image files."""
    return dict.fromkeys((one.name for one in fields(PixelSettings)), f"data.source={source} decodes no image files")
