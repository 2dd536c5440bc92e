"""Generates a clip: a note in a room, sometimes a second note behind it, noise, and a microphone."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from jepa_audio.instruments import INSTRUMENTS, RATE, Floats, play

SECONDS = 1.2  # length of a clip
_SAMPLES = round(SECONDS * RATE)
_SPECTRUM = 2**15  # points of the Fourier transform: so many that echoes at the end do not wrap round to the start
_LOWEST, _HIGHEST = 45.0, 81.0  # MIDI numbers: three octaves up from 110 Hz
_ONSETS = (0.2, 0.6)  # seconds


@dataclass(frozen=True)
class Clip:
    """wave: int16 [S] at RATE; instrument: its name; pitch: MIDI number (69 is 440 Hz); onset: seconds."""

    wave: NDArray[np.int16]
    instrument: str
    pitch: float
    onset: float


def record(seed: int, split: int, index: int) -> Clip:
    """Clip `index` of a split, a function of the three numbers alone; instruments alternate."""
    random = np.random.default_rng((seed, split, index))
    instrument = INSTRUMENTS[index % len(INSTRUMENTS)]
    pitch, onset = random.uniform(_LOWEST, _HIGHEST), random.uniform(*_ONSETS)
    wave = _note(instrument, pitch, onset, random)
    if random.uniform() < 0.5:
        other = INSTRUMENTS[random.integers(len(INSTRUMENTS))]
        behind = _note(other, random.uniform(_LOWEST, _HIGHEST), random.uniform(0, _ONSETS[1]), random)
        wave += _decibels(random.uniform(-24, -9)) * behind
    wave = _recorded(wave, random)
    wave *= _decibels(random.uniform(-18, -1)) / np.abs(wave).max()
    return Clip(np.rint(wave * (2**15 - 1)).astype(np.int16), instrument, pitch, onset)


def _note(instrument: str, pitch: float, onset: float, random: Generator) -> Floats:
    """Silence followed by a note: [S]."""
    start = round(onset * RATE)
    times = np.arange(_SAMPLES - start) / RATE
    note = play(instrument, 440 * 2 ** ((pitch - 69) / 12), times, random)
    return np.concatenate([np.zeros(start), note])


def _recorded(wave: Floats, random: Generator) -> Floats:
    """A wave as the microphone records it: with echoes, noise and a frequency response: [S] -> [S]."""
    noise = random.normal(size=_SAMPLES) * _decibels(random.uniform(-50, -20))
    room = np.fft.rfft(_echo(random), _SPECTRUM)
    spectrum = (np.fft.rfft(wave, _SPECTRUM) * room + np.fft.rfft(noise, _SPECTRUM)) * _response(random)
    return np.fft.irfft(spectrum)[:_SAMPLES]


def _echo(random: Generator) -> Floats:
    """The impulse response of a room: an impulse, then decaying noise."""
    fade, amount = random.uniform(0.03, 0.25), random.uniform(0, 0.06)
    times = np.arange(round(0.7 * RATE)) / RATE
    response = amount * random.normal(size=len(times)) * np.exp(-times / fade)
    response[0] = 1.0
    return response


def _response(random: Generator) -> Floats:
    """Gain of a microphone over frequency: waves of up to 8 dB over the octaves."""
    octaves = np.log2(np.fft.rfftfreq(_SPECTRUM, 1 / RATE)[1:] / 50)  # 0 to 7.3
    waves = [
        random.uniform(-8, 8) * np.cos(2 * np.pi * octaves / length + random.uniform(0, 2 * np.pi))
        for length in (14, 5, 2.5)
    ]
    return np.append(0.0, _decibels(np.sum(waves, axis=0)))


def _decibels(level: float | Floats) -> Floats:
    """Amplitude factor for a level in decibels."""
    return np.asarray(10.0 ** (np.asarray(level) / 20))
