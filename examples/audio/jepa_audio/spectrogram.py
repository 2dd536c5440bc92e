"""Log-mel spectrograms: power in frequency bands that are evenly spaced on a scale of perceived pitch."""

from dataclasses import dataclass
from functools import cached_property

import torch
from matplotlib import colormaps
from torch import Tensor

_SILENCE = 1e-10  # added to the power before the logarithm, so that the minimum is -100 dB
_LEVEL, _SPREAD = -60.0, 20.0  # dB: about the mean and the standard deviation of sounds


@dataclass(frozen=True)
class LogMel:
    """Transform of waves to log-mel spectrograms. rate: Hz; window, hop: samples; bands: rows."""

    rate: int
    window: int
    hop: int
    bands: int

    def __post_init__(self) -> None:
        if not self.filters.any(dim=1).all():
            raise ValueError(
                f"a window of {self.window} samples at {self.rate} Hz is too short for {self.bands} bands: some would "
                "be empty; use a longer window or fewer bands"
            )

    def __call__(self, wave: Tensor) -> Tensor:
        """[S] -> decibels [bands, T], the highest band first, as spectrograms are drawn.

        Frame t covers samples t * hop to t * hop + window and no others, so the frames of a part of a wave are a part
        of the frames of the whole.
        """
        spectrum = torch.stft(
            wave, self.window, self.hop, window=self._hann, center=False, return_complex=True
        )  # [window / 2 + 1, T]
        power = spectrum.abs().square() / self._hann.sum() ** 2
        return 10 * torch.log10(self.filters @ power + _SILENCE)

    def samples(self, frames: int) -> int:
        """Number of samples that this many frames cover."""
        return (frames - 1) * self.hop + self.window

    @cached_property
    def _hann(self) -> Tensor:
        return torch.hann_window(self.window)

    @cached_property
    def filters(self) -> Tensor:
        """Triangular filters, 1 at the centre of their band and 0 at the neighbours' centres: [bands, window / 2 + 1].

        Centres are evenly spaced on the scale mel = 2595 log10(1 + f / 700 Hz) from 0 to half the sampling rate
        (O'Shaughnessy 1987, as in HTK).
        """
        top = 2595 * torch.log10(torch.tensor(1 + self.rate / 2 / 700, dtype=torch.float64))
        edges = 700 * (10 ** (torch.linspace(0, float(top), self.bands + 2, dtype=torch.float64) / 2595) - 1)
        frequencies = torch.linspace(0, self.rate / 2, self.window // 2 + 1, dtype=torch.float64)
        low, middle, high = (edges[start : start + self.bands].flip(0).unsqueeze(1) for start in range(3))
        rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
        return torch.minimum(rising, falling).clamp(min=0).float()


def normalise(decibels: Tensor) -> Tensor:
    """To roughly zero mean and unit variance; any shape."""
    return (decibels - _LEVEL) / _SPREAD


def denormalise(values: Tensor) -> Tensor:
    """Inverse of `normalise`."""
    return values * _SPREAD + _LEVEL


def spectrogram_image(decibels: Tensor, zoom: int = 4) -> Tensor:
    """A spectrogram as a colour image: [bands, T] -> uint8 [zoom * bands, zoom * T, 3], bright where loud."""
    colours = colormaps["magma"](((decibels + 100) / 90).clamp(0, 1).numpy(), bytes=True)[..., :3]
    return torch.from_numpy(colours).repeat_interleave(zoom, dim=0).repeat_interleave(zoom, dim=1)
