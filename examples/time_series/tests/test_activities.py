"""Generated recordings: functions of (seed, split, index), physically consistent."""

import numpy as np
import pytest
import torch

from jepa_time_series.activities import ACTIVITIES, CHANNELS, DEVICES, Activities, ActivitiesConfig, rotation
from jepa_time_series.movement import GAITS, Movement
from jepa_time_series.windows import sensor

CONFIG = ActivitiesConfig(train=400, validation=50, test=50)


def test_a_recording_is_a_function_of_seed_split_and_index() -> None:
    one, again = (Activities(CONFIG, "train", 8, 32) for _ in range(2))
    _ = one[3]
    assert one[7].labels == again[7].labels
    torch.testing.assert_close(one[7].inputs, again[7].inputs, equal_nan=True)
    others = [Activities(CONFIG, "test", 8, 32)[7], Activities(ActivitiesConfig(seed=1), "train", 8, 32)[7], one[8]]
    assert all(not torch.equal(one[7].inputs[0], other.inputs[0]) for other in others)
    with pytest.raises(IndexError):
        one[400]


def test_devices_lack_whole_sensors_and_activities_with_steps_have_a_cadence() -> None:
    samples = [Activities(CONFIG, "train", 8, 32)[index] for index in range(200)]
    found = set()
    for sample in samples:
        valid = ~sample.inputs.isnan()
        assert torch.equal(valid.all(dim=1), valid.any(dim=1))
        sensors = [sensor(name) for name, present in zip(CHANNELS, valid[:, 0], strict=True) if present]
        found.add(tuple(dict.fromkeys(sensors)))
        assert ("cadence" in sample.labels) == GAITS[ACTIVITIES[int(sample.labels["class"])]].steps
    assert found == set(DEVICES)
    assert {int(sample.labels["class"]) for sample in samples} == set(range(len(ACTIVITIES)))


def test_the_turn_rate_is_the_derivative_of_the_rotation_and_steps_come_at_the_cadence() -> None:
    movement = Movement(GAITS["walk"], np.random.default_rng(0))
    time = np.arange(0, 40, 1e-3)
    motion = movement.at(time)
    np.testing.assert_allclose(np.gradient(motion.rotation, time, axis=0)[5:-5], motion.turn_rate[5:-5], atol=1e-3)
    shocks = motion.acceleration[:, 2] - motion.acceleration[:, 2].mean()
    spectrum = np.abs(np.fft.rfft(shocks * np.hanning(len(shocks))))
    strongest = np.fft.rfftfreq(len(shocks), 1e-3)[spectrum.argmax()] / movement.rate
    assert abs(strongest - round(strongest)) < 0.1


def test_climbing_stairs_changes_the_height() -> None:
    time = np.arange(0, 8, 0.01)
    heights = {name: Movement(GAITS[name], np.random.default_rng(1)).at(time).height for name in ACTIVITIES}
    assert heights["stairs up"][-1] > 1 > -1 > heights["stairs down"][-1]
    assert np.ptp(heights["walk"]) == 0


def test_every_orientation_is_equally_likely() -> None:
    generator = np.random.default_rng(0)
    rotations = np.stack([rotation(generator) for _ in range(3000)])
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), rotations.shape), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    assert np.abs(rotations.mean(axis=0)).max() < 0.05
    np.testing.assert_allclose(rotations.var(axis=0), 1 / 3, atol=0.03)
