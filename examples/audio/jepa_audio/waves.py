"""Reading and writing wav files: PCM of 8 to 32 bits and any number of channels, to one channel at the rate wanted."""

import wave
from math import gcd
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from jepa.modality import BadSampleError

_LONGEST = 600  # seconds that are read as a whole
_ADVICE = "only uncompressed PCM is read; ffmpeg -i FILE -c:a pcm_s16le NEW.wav makes it"


def read_wave(path: Path, rate: int, shortest: int = 1) -> Tensor:
    """A file as one channel, the mean of all, at `rate` Hz: float32 [S] between -1 and 1; raises BadSampleError.

    shortest: samples up to which silence follows where there are fewer.
    """
    try:
        with wave.open(str(path), "rb") as file:
            told = file.getparams()
            if told.nframes > _LONGEST * told.framerate:
                raise ValueError(f"it lasts longer than {_LONGEST} seconds; cut it into shorter files")
            data = file.readframes(told.nframes)
    except (EOFError, OSError, ValueError, wave.Error) as error:
        advice = f" ({_ADVICE})" if isinstance(error, wave.Error) else ""
        raise BadSampleError(str(path), f"{str(error) or 'the file ends too early'}{advice}") from error
    whole = told.nframes * told.nchannels * told.sampwidth
    if not told.nframes or len(data) < whole:
        reason = (
            f"it holds {len(data)} of the {whole} bytes of sound that it promises" if whole else "it holds no sound"
        )
        raise BadSampleError(str(path), reason)
    if told.sampwidth > 4 or told.framerate < 1:
        reason = f"samples of {8 * told.sampwidth} bits at {told.framerate} Hz ({_ADVICE})"
        raise BadSampleError(str(path), reason)
    channels = _numbers(data, told.sampwidth).reshape(-1, told.nchannels)
    mono = resample(torch.from_numpy(channels.mean(axis=1)).float(), told.framerate, rate)
    return F.pad(mono, (0, max(0, shortest - len(mono))))


def write_wave(path: Path, samples: NDArray[np.int16], rate: int) -> None:
    """One channel [S] of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def resample(samples: Tensor, source: int, target: int) -> Tensor:
    """[S] at `source` Hz -> [about S * target / source] at `target` Hz, without what either rate cannot hold.

    By the Fourier transform of the whole, which is exact for any two rates. The last twentieth below half of the lower
    rate fades out, as a sharp edge would ring; silence at the end keeps it from coming round to the start.
    """
    if source == target:
        return samples
    common = gcd(source, target)
    up, down = target // common, source // common
    length = -(-len(samples) * up // down)
    blocks = (len(samples) + source // 50) // down + 1
    spectrum = torch.fft.rfft(samples.double(), n=blocks * down)
    kept = min(blocks * up, blocks * down) // 2 + 1
    edge = torch.linspace(0, 20, kept, dtype=torch.float64).sub(19).clamp(min=0)
    faded = spectrum[:kept] * (1 + torch.cos(torch.pi * edge)) / 2
    resampled: Tensor = torch.fft.irfft(faded * up / down, n=blocks * up)
    return resampled[:length].float()


def _numbers(data: bytes, width: int) -> NDArray[np.float64]:
    """Little-endian samples of `width` bytes -> between -1 and 1; those of one byte are unsigned."""
    if width == 1:
        return np.frombuffer(data, np.uint8) / 128 - 1
    padded = np.zeros((len(data) // width, 4), np.uint8)  # the bytes above: as 32 bits, whatever the width
    padded[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
    return padded.view("<i4")[:, 0] / 2**31
