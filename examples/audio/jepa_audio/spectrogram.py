"""Log-mel spectrograms: how much power there is in bands that lie as evenly as we hear them."""

from dataclasses import dataclass
from functools import cached_property

import torch
from matplotlib import colormaps
from torch import Tensor

_SILENCE = 1e-10  # power that is added before the logarithm, so that nothing is softer than -100 dB
_LEVEL, _SPREAD = -60.0, 20.0  # decibels: about the mean and the deviation of what there is to hear


@dataclass(frozen=True)
class LogMel:
    """What turns waves into pictures of sound. rate: Hz; window, hop: samples; bands: rows."""

    rate: int
    window: int
    hop: int
    bands: int

    def __call__(self, wave: Tensor) -> Tensor:
        """[S] -> decibels [bands, T], the highest band first as spectrograms are drawn.

        Frame t sees the samples from t * hop on, and those alone: frames of a part are a part of the frames.
        """
        spectrum = torch.stft(
            wave, self.window, self.hop, window=self._hann, center=False, return_complex=True
        )  # [window / 2 + 1, T]
        power = spectrum.abs().square() / self._hann.sum() ** 2
        return 10 * torch.log10(self.filters @ power + _SILENCE)

    def samples(self, frames: int) -> int:
        """Samples that so many frames see."""
        return (frames - 1) * self.hop + self.window

    @cached_property
    def _hann(self) -> Tensor:
        return torch.hann_window(self.window)

    @cached_property
    def filters(self) -> Tensor:
        """Triangles that reach 1 in the middle of their band and 0 in that of its neighbours: [bands, window / 2 + 1].

        Middles are even on the scale mel = 2595 log10(1 + f / 700 Hz) from 0 to half the sampling rate (O'Shaughnessy
        1987, as in HTK).
        """
        top = 2595 * torch.log10(torch.tensor(1 + self.rate / 2 / 700, dtype=torch.float64))
        edges = 700 * (10 ** (torch.linspace(0, float(top), self.bands + 2, dtype=torch.float64) / 2595) - 1)
        frequencies = torch.linspace(0, self.rate / 2, self.window // 2 + 1, dtype=torch.float64)
        low, middle, high = (edges[start : start + self.bands].flip(0).unsqueeze(1) for start in range(3))
        rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
        return torch.minimum(rising, falling).clamp(min=0).float()


def normalise(decibels: Tensor) -> Tensor:
    """To about zero mean and unit variance, any shape."""
    return (decibels - _LEVEL) / _SPREAD


def denormalise(values: Tensor) -> Tensor:
    """Inverse of `normalise`."""
    return values * _SPREAD + _LEVEL


def painted(decibels: Tensor, enlarged: int = 4) -> Tensor:
    """A spectrogram as people see it: [bands, T] -> uint8 [enlarged * bands, enlarged * T, 3], bright where loud."""
    colours = colormaps["magma"](((decibels + 100) / 90).clamp(0, 1).numpy(), bytes=True)[..., :3]
    return torch.from_numpy(colours).repeat_interleave(enlarged, dim=0).repeat_interleave(enlarged, dim=1)
