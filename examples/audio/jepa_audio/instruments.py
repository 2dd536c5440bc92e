"""Ten synthetic instruments: each turns a pitch and a random generator into one note."""

# mypy: no-warn-return-any
# (numpy types what its ufuncs return as Any)

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Player = Callable[[float, Floats, Generator], Floats]  # pitch in Hz, times in seconds since the start -> wave

RATE = 16_000  # Hz
_MOST_HARMONICS = 40


def play(instrument: str, pitch: float, times: Floats, random: Generator) -> Floats:
    """A note of one of INSTRUMENTS: pitch in Hz, times in seconds since its start -> wave [S] with peak 1."""
    wave = PLAYERS[instrument](pitch, times, random)
    return wave / np.abs(wave).max()


def _bowed(pitch: float, times: Floats, random: Generator) -> Floats:
    """A sawtooth through the resonances of a body, with bow noise."""
    weights = _body(pitch, (280, 460, 1100, 2600)) / _numbers(pitch)
    tone = _harmonics(weights, _phase(pitch, times, random, vibrato=0.012), random.uniform(0.8, 1.0))
    return _sustained(times, random, attack=(0.04, 0.2)) * (tone + 0.1 * np.abs(tone).max() * _breath(times, random))


def _brass(pitch: float, times: Floats, random: Generator) -> Floats:
    """Brightness follows loudness: harmonics enter one after the other as the note swells."""
    swell = _sustained(times, random, attack=(0.03, 0.12))
    brightness = random.uniform(0.75, 0.97) * swell**0.4
    weights = _body(pitch, (600, 1300)) * np.minimum(_numbers(pitch), 3)
    return swell * _harmonics(weights, _phase(pitch, times, random, vibrato=0.004), brightness)


def _flute(pitch: float, times: Floats, random: Generator) -> Floats:
    """Few harmonics, much breath noise, and tremolo rather than vibrato."""
    brightness = random.uniform(0.25, 0.6) * (1 + _tremolo(times, random, depth=0.3))
    tone = _harmonics(np.ones(_count(pitch)), _phase(pitch, times, random, vibrato=0.002), brightness)
    noise = random.uniform(0.1, 0.4) * np.abs(tone).max() * _breath(times, random)
    return _sustained(times, random, attack=(0.04, 0.15)) * (1 + _tremolo(times, random, depth=0.25)) * (tone + noise)


def _organ(pitch: float, times: Floats, random: Generator) -> Floats:
    """Random stops at octaves and fifths, with a fast attack and constant loudness."""
    stops = np.zeros(_count(pitch))
    for harmonic in (1, 2, 3, 4, 6, 8):
        stops[min(harmonic, len(stops)) - 1] += random.uniform(0, 1) ** 2
    stops[0] += 0.3
    return _sustained(times, random, attack=(0.005, 0.03)) * _harmonics(
        stops, _phase(pitch, times, random, vibrato=0), 1.0
    )


def _reed(pitch: float, times: Floats, random: Generator) -> Floats:
    """A closed pipe: odd harmonics and weak even ones."""
    numbers = _numbers(pitch)
    weights = np.where(numbers % 2 == 1, 1.0, random.uniform(0.02, 0.25)) * _body(pitch, (1500, 3200)) / numbers**0.5
    tone = _harmonics(weights, _phase(pitch, times, random, vibrato=0.003), random.uniform(0.7, 0.95))
    return _sustained(times, random, attack=(0.02, 0.08)) * tone


def _voice(pitch: float, times: Floats, random: Generator) -> Floats:
    """A vowel: three strong resonances, and vibrato."""
    vowels = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))
    vowel = [formant * random.uniform(0.9, 1.15) for formant in vowels[random.integers(len(vowels))]]
    weights = _body(pitch, vowel, sharpness=9) / _numbers(pitch) ** 0.7
    tone = _harmonics(weights, _phase(pitch, times, random, vibrato=0.02), random.uniform(0.85, 1.0))
    return _sustained(times, random, attack=(0.04, 0.15)) * (tone + 0.05 * np.abs(tone).max() * _breath(times, random))


def _bass(pitch: float, times: Floats, random: Generator) -> Floats:
    """A string over a pickup that misses some harmonics; brightness decays faster than loudness."""
    weights = np.abs(np.sin(np.pi * _numbers(pitch) * random.uniform(0.1, 0.25)))
    brightness = random.uniform(0.7, 0.95) * np.exp(-times / random.uniform(0.3, 1.5))
    tone = _harmonics(weights, _phase(pitch, times, random, vibrato=0), brightness)
    return _struck(times, random.uniform(0.15, 0.8)) * tone


def _plucked(pitch: float, times: Floats, random: Generator) -> Floats:
    """A plucked string: circulating noise, averaged with its neighbour each round (Karplus and Strong 1983)."""
    period = int(RATE / pitch - 0.5)  # samples; the averaging delays by the missing half
    loss = 0.5 * np.exp(-period / (RATE * random.uniform(0.15, 0.8)))
    ring, last = random.uniform(-1, 1, period), 0.0
    for _ in range(random.integers(1, 4)):  # a softer finger gives a duller sound
        ring = (ring + np.roll(ring, 1)) / 2
    ring -= ring.mean()
    rounds = [ring]
    for _ in range(int(1.1 * len(times) / period) + 1):
        ring, last = loss * (ring + np.append(last, ring[:-1])), ring[-1]
        rounds.append(ring)
    string = np.concatenate(rounds)
    return np.interp(times * pitch * (period + 0.5), np.arange(len(string)), string)


def _bell(pitch: float, times: Floats, random: Generator) -> Floats:
    """Inharmonic partials; higher ones decay faster."""
    return _partials(pitch, (0.5, 1.0, 1.2, 1.5, 2.0, 2.6, 3.0, 4.1, 5.4), random.uniform(0.3, 1.2), times, random)


def _vibraphone(pitch: float, times: Floats, random: Generator) -> Floats:
    """Bars with partials two octaves apart, and the tremolo of rotating discs."""
    tremolo = 1 + _tremolo(times, random, depth=0.5)
    return tremolo * _partials(pitch, (1.0, 4.0, 9.9), random.uniform(0.3, 1.2), times, random)


PLAYERS: dict[str, Player] = {
    "bass": _bass,
    "bell": _bell,
    "bowed": _bowed,
    "brass": _brass,
    "flute": _flute,
    "organ": _organ,
    "plucked": _plucked,
    "reed": _reed,
    "vibraphone": _vibraphone,
    "voice": _voice,
}
INSTRUMENTS = tuple(PLAYERS)


def _count(pitch: float) -> int:
    """Number of harmonics below half the sampling rate."""
    return min(_MOST_HARMONICS, int(0.48 * RATE / pitch))


def _numbers(pitch: float) -> Floats:
    return np.arange(1.0, _count(pitch) + 1)


def _body(pitch: float, resonances: Sequence[float], sharpness: float = 4) -> Floats:
    """Gain of each harmonic in a body with resonances at these frequencies in Hz."""
    octaves = np.log2(pitch * _numbers(pitch)[:, None] / np.array(resonances))
    return 0.08 + np.exp(-sharpness * octaves**2).sum(axis=1)


def _harmonics(weights: Floats, phase: Floats, brightness: Floats | float) -> Floats:
    """sum_k weights_k brightness^k sin(k phase), as a polynomial in z by Horner's rule: [K], [S], [S] -> [S]."""
    z = (brightness * np.exp(1j * phase)).astype(np.complex64)
    total = np.zeros_like(z)
    for weight in weights[::-1].astype(np.float32):
        total = (total + weight) * z
    return np.asarray(total.imag, dtype=np.float64)


def _partials(pitch: float, ratios: Sequence[float], fade: float, times: Floats, random: Generator) -> Floats:
    """Struck metal: partials at multiples of a pitch that decay within `fade` seconds, higher ones faster."""
    hardness, wave = random.uniform(0.5, 1.2), np.zeros_like(times)
    for ratio in ratios:
        if ratio * pitch < RATE / 2:
            strength = random.uniform(0.3, 1) / ratio ** (1.5 - hardness)
            wave += strength * np.exp(-times * ratio**0.7 / fade) * np.sin(2 * np.pi * ratio * pitch * times)
    return wave * _struck(times, fade=4.0)


def _phase(pitch: float, times: Floats, random: Generator, vibrato: float) -> Floats:
    """Phase of a tone with delayed vibrato; `vibrato`: its greatest depth, as a share of the pitch."""
    rate, depth = random.uniform(4.5, 7), vibrato * random.uniform(0.2, 1)
    late = np.minimum(times / 0.3, 1)
    return 2 * np.pi * pitch * times - late * depth * pitch / rate * np.cos(2 * np.pi * rate * times)


def _tremolo(times: Floats, random: Generator, depth: float) -> Floats:
    return depth * random.uniform(0.2, 1) * np.sin(2 * np.pi * (random.uniform(4, 7) * times + random.uniform()))


def _breath(times: Floats, random: Generator) -> Floats:
    """Low-pass noise."""
    return np.convolve(random.normal(size=len(times)), np.hanning(random.integers(5, 12)), mode="same") / 2


def _sustained(times: Floats, random: Generator, attack: tuple[float, float]) -> Floats:
    """Loudness of a sustained note: attack (in a time drawn from `attack`, seconds), sustain and release."""
    rise, sustain, release = random.uniform(*attack), random.uniform(0.25, 1.2), random.uniform(0.03, 0.15)
    drift = 1 - random.uniform(0, 0.5) * times
    return drift * (1 - np.exp(-3 * times / rise)) / (1 + np.exp(np.minimum((times - sustain) / (0.2 * release), 50)))


def _struck(times: Floats, fade: float) -> Floats:
    return np.minimum(times / 0.004, 1) * np.exp(-times / fade)
