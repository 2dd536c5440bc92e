"""Wav files: all PCM widths are read, all rates are resampled, and broken files are bad samples."""

import struct
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from jepa.modality import BadSampleError
from jepa_audio.waves import read_wave, resample, write_wave


def pcm(path: Path, values: np.ndarray, width: int, rate: int = 8000) -> Path:
    """Write [S, channels] between -1 and 1 as samples of `width` bytes."""
    top = 2 ** (8 * width - 1)
    whole = np.rint(values * (top - 1)).astype(np.int64) + (top if width == 1 else 0)
    data = b"".join(int(value).to_bytes(width, "little", signed=width > 1) for value in whole.flatten())
    with wave.open(str(path), "wb") as file:
        file.setparams((values.shape[1], width, rate, 0, "NONE", ""))
        file.writeframes(data)
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_all_widths_and_channels_are_read(tmp_path: Path, width: int, channels: int) -> None:
    values = np.random.default_rng(width).uniform(-1, 1, (50, channels))
    values[:2] = [[-1], [1]]
    found = read_wave(pcm(tmp_path / "a.wav", values, width), 8000)
    torch.testing.assert_close(
        found, torch.from_numpy(values.mean(axis=1)).float(), atol=2.0 ** (2 - 8 * width), rtol=0
    )


def extensible(path: Path, plain: Path, subformat: int = 1) -> Path:
    """Write a plain file with the extensible header of ffmpeg, after a chunk of odd length."""
    with wave.open(str(plain), "rb") as file:
        channels, width, rate, frames, *_ = file.getparams()
        data = file.readframes(frames)
    align = channels * width
    header = struct.pack("<HHIIHHHHI", 0xFFFE, channels, rate, rate * align, align, 8 * width, 22, 8 * width, 0)
    guid = struct.pack("<H", subformat) + bytes.fromhex("000000001000800000aa00389b71")
    chunks = ((b"LIST", b"odd"), (b"fmt ", header + guid), (b"data", data))
    body = b"".join(name + struct.pack("<I", len(part)) + part + bytes(len(part) % 2) for name, part in chunks)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
    return path


@pytest.mark.parametrize(("width", "channels", "rate"), [(2, 6, 8000), (3, 1, 8000), (3, 2, 96000), (4, 2, 8000)])
def test_files_with_an_extensible_header_equal_plain_ones(tmp_path: Path, width: int, channels: int, rate: int) -> None:
    values = np.random.default_rng(0).uniform(-1, 1, (51, channels))
    plain = pcm(tmp_path / "a.wav", values, width, rate)
    path = extensible(tmp_path / "b.wav", plain)
    before = path.read_bytes()
    assert torch.equal(read_wave(path, 8000), read_wave(plain, 8000))
    assert path.read_bytes() == before
    with pytest.raises(BadSampleError, match=r"unknown .*format.*ffmpeg"):
        read_wave(extensible(path, plain, subformat=3), 8000)


def test_written_files_read_back_and_short_ones_are_padded_with_silence(tmp_path: Path) -> None:
    samples = np.array([0, 2**15 - 1, -(2**15), 77], np.int16)
    write_wave(tmp_path / "a.wav", samples, 8000)
    found = read_wave(tmp_path / "a.wav", 8000, shortest=6)
    assert found.tolist() == [*(samples / 2**15).tolist(), 0, 0]


@pytest.mark.parametrize(("source", "target"), [(44100, 16000), (8000, 16000), (16000, 11025), (22051, 8000)])
def test_resampling_keeps_a_tone_below_both_nyquist_limits(source: int, target: int) -> None:
    def tone(rate: int) -> torch.Tensor:
        times = torch.arange(rate // 2, dtype=torch.float64) / rate
        return (torch.sin(2 * torch.pi * 1234.5 * times) * torch.sin(2 * torch.pi * times) ** 2).float()

    found = resample(tone(source), source, target)
    assert abs(len(found) - target // 2) <= 1
    length = min(len(found), target // 2)
    torch.testing.assert_close(found[:length], tone(target)[:length], atol=1e-4, rtol=0)


def test_resampling_removes_a_tone_above_the_lower_nyquist_limit() -> None:
    times = torch.arange(44100) / 44100
    found = resample(torch.sin(2 * torch.pi * 9000 * times), 44100, 16000)
    assert float(found[500:-500].abs().max()) < 1e-2


def broken(folder: Path, kind: str) -> Path:
    path = pcm(folder / f"{kind}.wav", np.zeros((100, 1)), 2)
    data = bytearray(path.read_bytes())
    match kind:
        case "empty":
            data = bytearray()
        case "text":
            data = bytearray(b"this is no sound at all, but a line of text")
        case "cut":
            data = data[:-50]
        case "float":
            data[20:22] = (3).to_bytes(2, "little")
        case "silent":
            pcm(path, np.zeros((0, 1)), 2)
            return path
        case "endless":
            data = bytearray(pcm(path, np.zeros((601, 1)), 2, rate=1).read_bytes())
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "ends too early"),
        ("text", "RIFF.*ffmpeg"),
        ("cut", "holds 150 of the 200 bytes"),
        ("float", "unknown format: 3.*uncompressed PCM.*ffmpeg"),
        ("silent", "no sound"),
        ("endless", "longer than 600 seconds"),
    ],
)
def test_a_broken_file_is_a_bad_sample_with_a_reason(tmp_path: Path, kind: str, reason: str) -> None:
    with pytest.raises(BadSampleError, match=reason) as caught:
        read_wave(broken(tmp_path, kind), 8000)
    assert caught.value.source.endswith(f"{kind}.wav")


def test_a_missing_file_is_a_bad_sample(tmp_path: Path) -> None:
    with pytest.raises(BadSampleError, match="No such file"):
        read_wave(tmp_path / "gone.wav", 8000)
