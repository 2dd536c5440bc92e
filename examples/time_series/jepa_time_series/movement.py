"""A model of human movement as a worn device measures it: cycles with harmonics, impacts, tremor, height.

Coordinates: x forward, y left, z up. A movement is a function of time, so that any clock can sample it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float64]
_TURN = 2 * np.pi
_RINGING = 11.0  # Hz, of the vibration after an impact
_TREMORS = 6  # sine waves that approximate band-limited noise


@dataclass(frozen=True, kw_only=True)
class Gait:
    """The parameters of an activity. A stride is two cycles, left and right.

    rate: cycles per second, from low to high. bounce, surge: amplitudes (m/s^2) of the first harmonics of a cycle,
    upward and forward. sway: the same to the left, for harmonics of a stride. lag: phase of the surge behind the
    bounce. swing: rotation (rad) of the body part about x, y, z in a stride. impact, width: strength (m/s^2) and
    duration (s) of the shock at the start of a cycle. tremor, band: amplitude (m/s^2) and band (Hz) of aperiodic
    motion. climb: metres upward per cycle. steps: whether a cycle is a step.
    """

    rate: tuple[float, float]
    bounce: tuple[float, float, float]
    surge: tuple[float, float, float]
    sway: float
    lag: float
    swing: tuple[float, float, float]
    impact: float
    width: float
    tremor: float
    band: tuple[float, float]
    climb: float = 0.0
    steps: bool = False


GAITS = {
    "walk": Gait(
        rate=(1.5, 2.2), bounce=(2.2, 0.8, 0.3), surge=(1.0, 0.5, 0.2), sway=0.9, lag=1.5, swing=(0.07, 0.12, 0.08),
        impact=2.5, width=0.04, tremor=0.3, band=(3, 12), steps=True,
    ),
    "run": Gait(
        rate=(2.2, 3.1), bounce=(6.0, 1.2, 0.4), surge=(1.6, 0.7, 0.3), sway=1.4, lag=2.4, swing=(0.08, 0.18, 0.12),
        impact=5.0, width=0.03, tremor=0.6, band=(3, 12), steps=True,
    ),
    "stairs up": Gait(
        rate=(1.4, 2.1), bounce=(1.9, 1.0, 0.2), surge=(1.2, 0.3, 0.2), sway=1.1, lag=0.4, swing=(0.09, 0.17, 0.07),
        impact=1.5, width=0.05, tremor=0.35, band=(3, 12), climb=0.17, steps=True,
    ),
    "stairs down": Gait(
        rate=(1.6, 2.4), bounce=(2.4, 1.3, 0.7), surge=(0.7, 0.6, 0.4), sway=1.0, lag=2.6, swing=(0.08, 0.10, 0.09),
        impact=4.0, width=0.03, tremor=0.4, band=(3, 12), climb=-0.17, steps=True,
    ),
    "cycle": Gait(
        rate=(1.6, 3.0), bounce=(0.5, 0.3, 0.1), surge=(0.6, 0.2, 0.1), sway=0.9, lag=0.9, swing=(0.10, 0.22, 0.05),
        impact=0.0, width=0.05, tremor=1.2, band=(6, 15),
    ),
    "drive": Gait(
        rate=(0.1, 0.4), bounce=(0.2, 0.2, 0.1), surge=(0.6, 0.3, 0.1), sway=0.6, lag=2.0, swing=(0.02, 0.02, 0.25),
        impact=0.0, width=0.05, tremor=0.7, band=(9, 15),
    ),
    "stand": Gait(
        rate=(0.4, 1.0), bounce=(0.05, 0.03, 0.02), surge=(0.2, 0.1, 0.05), sway=0.2, lag=1.0, swing=(0.03, 0.03, 0.03),
        impact=0.0, width=0.05, tremor=0.25, band=(1, 8),
    ),
    "type": Gait(
        rate=(2.5, 6.0), bounce=(0.05, 0.04, 0.03), surge=(0.08, 0.04, 0.02), sway=0.1, lag=1.0,
        swing=(0.01, 0.01, 0.01), impact=0.8, width=0.02, tremor=0.15, band=(5, 15),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Motion:
    """Motion of a device at T times."""

    acceleration: Array  # [T, 3] m/s^2, without gravity
    rotation: Array  # [T, 3] rad, small rotation vector relative to the worn orientation
    turn_rate: Array  # [T, 3] rad/s
    height: Array  # [T] m


class Movement:
    """One person's movement in one window, with random variation between people and days.

    Each person has a vigour and a position of the device between hip and wrist; at the wrist it swings more and shocks
    are weaker. Amplitudes and phases of all harmonics vary around those of the gait.
    """

    def __init__(self, gait: Gait, generator: Generator) -> None:
        self.gait = gait
        self.rate = generator.uniform(*gait.rate)  # cycles per second
        self._drift = (generator.uniform(0, 0.08), generator.uniform(0.1, 0.3), generator.uniform(0, _TURN))
        self._start = generator.uniform(0, _TURN)
        vigour, self._limp = generator.lognormal(0, 0.3), generator.uniform(-0.3, 0.3)
        wrist = generator.uniform(0, 1)  # position of the device: 0 hip, 1 wrist
        self._waves = vigour * np.array([gait.surge, (gait.sway, 0, gait.sway / 3), gait.bounce])  # [3, harmonics]
        self._waves *= generator.lognormal(0, 0.35, (3, 3))
        lags = np.array([[gait.lag], [gait.lag / 2], [0.0]])
        self._lags = lags * np.arange(1, 4) + generator.normal(0, 0.4, (3, 3))
        self._swing = np.array(gait.swing) * generator.lognormal(0, 0.4, 3) * (1 + 2 * wrist)
        self._swing_lags = np.arange(3) + generator.normal(0, 0.5, 3)
        self._impact, self._width = vigour * gait.impact * (1 - 0.5 * wrist), gait.width * (1 + wrist)
        self._tremor = gait.tremor * generator.lognormal(0, 0.4) * generator.normal(0, 1, (_TREMORS, 3))
        self._tremor_rates = generator.uniform(*gait.band, _TREMORS)
        self._tremor_lags = generator.uniform(0, _TURN, (_TREMORS, 3))

    def at(self, time: Array) -> Motion:
        """The motion at times [T] in seconds."""
        phase, speed = self._phase(time)
        cycles = phase[:, None, None] * np.array([[1, 2, 3], [0.5, 1, 1.5], [1, 2, 3]])  # sway follows the stride
        acceleration = (self._waves * np.cos(cycles - self._lags)).sum(axis=-1)
        acceleration[:, 2] += self._shocks(phase)
        tremor_phase = time[:, None, None] * _TURN * self._tremor_rates[:, None] + self._tremor_lags
        acceleration += (self._tremor * np.sin(tremor_phase)).sum(axis=1) / np.sqrt(_TREMORS / 2)
        swing_phase = phase[:, None] / 2 - self._swing_lags  # [T, 3]
        turn_rate = self._swing * np.cos(swing_phase) * speed[:, None] / 2
        climbed = self.gait.climb * (phase - self._start) / _TURN
        return Motion(acceleration, self._swing * np.sin(swing_phase), turn_rate, climbed)

    def _phase(self, time: Array) -> tuple[Array, Array]:
        """Phase of the cycle and its rate, in rad and rad/s; the pace drifts."""
        depth, rate, start = self._drift
        swell = _TURN * rate * time + start
        phase = self._start + _TURN * self.rate * (time + depth * np.sin(swell) / (_TURN * rate))
        return phase, _TURN * self.rate * (1 + depth * np.cos(swell))

    def _shocks(self, phase: Array) -> Array:
        """Shocks at the start of every cycle, stronger on one side: [T]."""
        since = phase % _TURN / (_TURN * self.rate)  # seconds
        side = 1 + self._limp * np.where(phase % (2 * _TURN) < _TURN, 1, -1)
        shocks: Array = self._impact * side * np.exp(-since / self._width) * np.cos(_TURN * _RINGING * since)
        return shocks
