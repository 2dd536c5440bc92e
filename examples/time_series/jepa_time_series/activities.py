"""Generated recordings of wearable sensors; each is a function of (seed, split, index).

A device has only some of the sensors, is worn in any orientation, and has a cheap clock, inexact scales and an
unreliable radio. A single channel therefore says little, and nothing is at the same place in two windows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator, default_rng
from pydantic import NonNegativeInt, PositiveInt

from jepa.modality import Sample, Split
from jepa_time_series.movement import GAITS, Array, Movement

ACTIVITIES = tuple(GAITS)
CHANNELS = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z", "mag_x", "mag_y", "mag_z", "pressure")
DEVICES = (("acc",), ("acc", "gyro"), ("acc", "pressure"), ("acc", "gyro", "mag", "pressure"))  # equally common

_SPLITS: dict[Split, int] = {"train": 0, "validation": 1, "test": 2}
_GRAVITY, _LIMIT = np.array([0, 0, 9.81]), 39.0  # m/s^2; the accelerometer ends at 4 g
_FIELD = (22.0, -42.0)  # magnetic field of the earth in microtesla, north and up
_HPA_A_METRE = -0.12
_NOISE = {"acc": 0.12, "gyro": 0.03, "mag": 0.6, "pressure": 0.02}  # m/s^2, rad/s, microtesla, hPa
_BIAS = {"acc": 0.2, "gyro": 0.02, "mag": 4.0, "pressure": 3.0}


@dataclass(frozen=True, kw_only=True)
class ActivitiesConfig:
    """seed: another seed gives other people. train, validation, test: recordings generated for each split."""

    seed: NonNegativeInt = 0
    train: PositiveInt = 12_000
    validation: PositiveInt = 2_000
    test: PositiveInt = 2_000


class Activities:
    """Recordings of 10 channels, float32 [10, T] in SI units, microtesla and hPa, NaN in missing channels.

    Labels: `class`, index in ACTIVITIES; `cadence`, steps per second, if the activity has steps.
    """

    def __init__(self, config: ActivitiesConfig, split: Split, seconds: float, rate: float) -> None:
        self.count = {"train": config.train, "validation": config.validation, "test": config.test}[split]
        self.key = (config.seed, _SPLITS[split])
        self.seconds, self.rate = seconds, rate

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        generator = default_rng((*self.key, index))
        activity = int(generator.integers(len(ACTIVITIES)))
        movement = Movement(GAITS[ACTIVITIES[activity]], generator)
        values = record(movement, _clock(self.seconds, self.rate, generator), generator)
        labels: dict[str, float] = {"class": activity}
        if movement.gait.steps:
            labels["cadence"] = movement.rate
        return Sample(torch.from_numpy(values.astype(np.float32)), labels)


def record(movement: Movement, time: Array, generator: Generator) -> Array:
    """Readings of a random device at times [T] in seconds -> [10, T], NaN for sensors that it lacks.

    First order in the small rotation of the body part; the device itself is worn in any orientation.
    """
    motion, orientation, heading = movement.at(time), rotation(generator), generator.uniform(0, 2 * np.pi)
    north, up = _FIELD
    field = np.array([north * np.cos(heading), north * np.sin(heading), up])

    def in_device(vectors: Array) -> Array:
        return (vectors - np.cross(motion.rotation, vectors)) @ orientation.T

    readings = {
        "acc": in_device(motion.acceleration + _GRAVITY),
        "gyro": motion.turn_rate @ orientation.T,
        "mag": in_device(np.broadcast_to(field, (len(time), 3))),
        "pressure": 1013 + _HPA_A_METRE * motion.height[:, None],
    }
    sensors = DEVICES[int(generator.integers(len(DEVICES)))]
    measured = [_measured(name, values, name in sensors, generator) for name, values in readings.items()]
    return np.concatenate(measured, axis=1).T


def rotation(generator: Generator) -> Array:
    """A uniformly random rotation: [3, 3]."""
    axes, triangle = np.linalg.qr(generator.normal(size=(3, 3)))
    axes = axes * np.sign(np.diag(triangle))
    axes[:, 0] *= np.linalg.det(axes)
    return axes


def _clock(seconds: float, rate: float, generator: Generator) -> Array:
    """Actual times [T] of samples taken at a nominal rate, in Hz, by a clock with drift and jitter."""
    moments: Array = np.arange(round(seconds * rate)) / rate * (1 + generator.normal(0, 0.01))
    return moments + generator.normal(0, 0.05 / rate, len(moments))


def _measured(sensor: str, values: Array, present: bool, generator: Generator) -> Array:
    """A sensor's readings [T, 1 or 3] with bias, scale error, noise, clipping and gaps; NaN unless present."""
    if not present:
        return np.full_like(values, np.nan)
    bias = generator.normal(0, _BIAS[sensor], values.shape[1])
    read = values * generator.normal(1, 0.02) + bias + generator.normal(0, _NOISE[sensor], values.shape)
    if sensor == "acc":
        read = read.clip(-_LIMIT, _LIMIT)
    if generator.random() < 0.2:  # the radio fails: the last value is repeated
        first = int(generator.integers(1, len(read)))
        read[first : first + int(generator.integers(2, len(read) // 12 + 3))] = read[first - 1]
    return read
