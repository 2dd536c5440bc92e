"""Log-mel spectrograms equal an independent implementation of their definition."""

import math

import numpy as np
import pytest
import torch

from jepa_audio.spectrogram import LogMel, denormalise, normalise, spectrogram_image

LOG_MEL = LogMel(rate=8000, window=256, hop=64, bands=20)


def by_definition(wave: np.ndarray, frame: int, band: int) -> float:
    """Decibels of one frame in one band, counted from the lowest, with every sum written out."""
    mel = [2595 * math.log10(1 + 4000 / 700) * step / 21 for step in range(22)]
    low, middle, high = (700 * (10 ** (each / 2595) - 1) for each in mel[band : band + 3])
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * n / 256) for n in range(256)]
    part = wave[64 * frame : 64 * frame + 256] * hann
    power = 0.0
    for k in range(129):
        frequency = k * 8000 / 256
        weight = max(0.0, min((frequency - low) / (middle - low), (high - frequency) / (high - middle)))
        wave_k = np.exp(-2j * math.pi * k * np.arange(256) / 256)
        power += weight * abs((part * wave_k).sum()) ** 2
    return 10 * math.log10(power / sum(hann) ** 2 + 1e-10)


def test_a_spectrogram_equals_its_definition() -> None:
    wave = np.random.default_rng(0).normal(size=700) * np.linspace(0, 1, 700)
    found = LOG_MEL(torch.from_numpy(wave).float())
    assert found.shape == (20, (700 - 256) // 64 + 1)
    for frame, band in ((0, 0), (0, 19), (3, 7), (6, 12)):
        assert float(found[19 - band, frame]) == pytest.approx(by_definition(wave, frame, band), abs=1e-3)


def test_frames_of_a_part_of_a_wave_are_a_part_of_its_frames() -> None:
    wave = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    part = wave[5 * 64 : 5 * 64 + LOG_MEL.samples(9)]
    torch.testing.assert_close(LOG_MEL(part), LOG_MEL(wave)[:, 5:14])


def test_a_tone_is_loudest_in_its_own_band_and_loudness_is_in_decibels() -> None:
    centres = 700 * (10 ** (torch.linspace(0, 2595 * math.log10(1 + 4000 / 700), 22) / 2595) - 1)[1:-1].flip(0)
    for band in (0, 4, 11, 16):
        tone = torch.sin(2 * torch.pi * centres[band] * torch.arange(256) / 8000)
        loud, soft = LOG_MEL(tone)[:, 0], LOG_MEL(tone / 10)[:, 0]
        assert int(loud.argmax()) == band
        assert float(loud[band] - soft[band]) == pytest.approx(20, abs=0.01)


def test_filter_weights_of_a_frequency_sum_to_one() -> None:
    sums = LOG_MEL.filters.sum(dim=0)[3:-20]
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_images_brighten_with_loudness_and_denormalise_inverts_normalise() -> None:
    decibels = torch.linspace(-110, 0, 12).view(3, 4)
    torch.testing.assert_close(denormalise(normalise(decibels)), decibels)
    picture = spectrogram_image(decibels, zoom=2)
    assert (picture.shape, picture.dtype) == ((6, 8, 3), torch.uint8)
    brightness = picture[::2, ::2].float().mean(dim=-1).flatten()
    assert bool((brightness.diff() >= 0).all())
