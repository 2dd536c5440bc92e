"""Reads and writes wav files: PCM of 8 to 32 bits with any number of channels, converted to mono at a given rate."""

import mmap
import wave
from math import gcd
from pathlib import Path
from typing import IO, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from jepa.modality import BadSampleError

_LONGEST = 600  # seconds
_PCM, _EXTENSIBLE = b"\x01\x00", b"\xfe\xff"  # format tags
_PCM_SUBFORMAT = _PCM + bytes.fromhex("000000001000800000aa00389b71")
_ADVICE = "only uncompressed PCM can be read; convert with: ffmpeg -i FILE -c:a pcm_s16le NEW.wav"


def read_wave(path: Path, rate: int, shortest: int = 1) -> Tensor:
    """A file as the mean of its channels at `rate` Hz: float32 [S] between -1 and 1; raises BadSampleError.

    shortest: a file with fewer samples is padded with silence to this many.
    """
    try:
        with path.open("rb") as raw, wave.open(_plain(raw), "rb") as file:
            header = file.getparams()
            if header.nframes > _LONGEST * header.framerate:
                raise ValueError(f"longer than {_LONGEST} seconds; cut it into shorter files")
            data = file.readframes(header.nframes)
    except (EOFError, OSError, ValueError, wave.Error) as error:
        advice = f" ({_ADVICE})" if isinstance(error, wave.Error) else ""
        raise BadSampleError(str(path), f"{str(error) or 'the file ends too early'}{advice}") from error
    whole = header.nframes * header.nchannels * header.sampwidth
    if not header.nframes or len(data) < whole:
        reason = (
            f"it holds {len(data)} of the {whole} bytes of sound that its header states" if whole else "it has no sound"
        )
        raise BadSampleError(str(path), reason)
    if header.sampwidth > 4 or header.framerate < 1:
        reason = f"samples of {8 * header.sampwidth} bits at {header.framerate} Hz ({_ADVICE})"
        raise BadSampleError(str(path), reason)
    channels = _numbers(data, header.sampwidth).reshape(-1, header.nchannels)
    mono = resample(torch.from_numpy(channels.mean(axis=1)).float(), header.framerate, rate)
    return F.pad(mono, (0, max(0, shortest - len(mono))))


def write_wave(path: Path, samples: NDArray[np.int16], rate: int) -> None:
    """Write one channel [S] of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def resample(samples: Tensor, source: int, target: int) -> Tensor:
    """[S] at `source` Hz -> [about S * target / source] at `target` Hz, without frequencies above either Nyquist limit.

    By the Fourier transform of the whole signal, which is exact for any two rates. The last twentieth below the lower
    Nyquist limit is faded out, because a sharp edge would ring; padding keeps the end from wrapping round to the start.
    """
    if source == target:
        return samples
    common = gcd(source, target)
    up, down = target // common, source // common
    length = -(-len(samples) * up // down)
    blocks = (len(samples) + source // 50) // down + 1
    spectrum = torch.fft.rfft(samples.double(), n=blocks * down)
    count = min(blocks * up, blocks * down) // 2 + 1
    edge = torch.linspace(0, 20, count, dtype=torch.float64).sub(19).clamp(min=0)
    faded = spectrum[:count] * (1 + torch.cos(torch.pi * edge)) / 2
    resampled: Tensor = torch.fft.irfft(faded * up / down, n=blocks * up)
    return resampled[:length].float()


def _plain(file: IO[bytes]) -> IO[bytes]:
    """The file, or a view with the plain tag if its tag is 'extensible' and its samples are PCM.

    Python's wave module refuses that tag before 3.12.
    """
    name = file.read(12)[:4]
    while name and name != b"fmt ":
        name, size = file.read(4), int.from_bytes(file.read(4), "little")
        file.seek(0 if name == b"fmt " else size + size % 2, 1)
    start, chunk = file.tell(), file.read(40)
    file.seek(0)
    if chunk[:2] != _EXTENSIBLE or chunk[24:] != _PCM_SUBFORMAT:
        return file
    view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # changes stay in memory
    view[start : start + 2] = _PCM
    return cast(IO[bytes], view)


def _numbers(data: bytes, width: int) -> NDArray[np.float64]:
    """Little-endian samples of `width` bytes -> values between -1 and 1; one-byte samples are unsigned."""
    if width == 1:
        return np.frombuffer(data, np.uint8) / 128 - 1
    padded = np.zeros((len(data) // width, 4), np.uint8)  # scaled to 32 bits, whatever the width
    padded[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
    return padded.view("<i4")[:, 0] / 2**31
