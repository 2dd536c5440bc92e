"""Generated recordings: functions of (seed, split, index), with what sensors of such devices would tell."""

import numpy as np
import pytest
import torch

from jepa_time_series.activities import ACTIVITIES, CHANNELS, DEVICES, Activities, ActivitiesConfig, rotation
from jepa_time_series.movement import GAITS, Movement
from jepa_time_series.windows import sensor

CONFIG = ActivitiesConfig(train=400, validation=50, test=50)


def test_a_recording_follows_from_seed_split_and_index_alone() -> None:
    one, again = (Activities(CONFIG, "train", 8, 32) for _ in range(2))
    _ = one[3]
    assert one[7].labels == again[7].labels
    torch.testing.assert_close(one[7].inputs, again[7].inputs, equal_nan=True)
    others = [Activities(CONFIG, "test", 8, 32)[7], Activities(ActivitiesConfig(seed=1), "train", 8, 32)[7], one[8]]
    assert all(not torch.equal(one[7].inputs[0], other.inputs[0]) for other in others)
    with pytest.raises(IndexError):
        one[400]


def test_devices_lack_whole_sensors_and_steps_have_a_cadence() -> None:
    samples = [Activities(CONFIG, "train", 8, 32)[index] for index in range(200)]
    found = set()
    for sample in samples:
        there = ~sample.inputs.isnan()
        assert torch.equal(there.all(dim=1), there.any(dim=1))
        present = [sensor(name) for name, is_there in zip(CHANNELS, there[:, 0], strict=True) if is_there]
        found.add(tuple(dict.fromkeys(present)))
        assert ("cadence" in sample.labels) == GAITS[ACTIVITIES[int(sample.labels["class"])]].steps
    assert found == set(DEVICES)
    assert {int(sample.labels["class"]) for sample in samples} == set(range(len(ACTIVITIES)))


def test_turning_is_how_fast_it_turns_and_steps_come_at_the_cadence() -> None:
    movement = Movement(GAITS["walk"], np.random.default_rng(0))
    time = np.arange(0, 40, 1e-3)
    motion = movement.at(time)
    np.testing.assert_allclose(np.gradient(motion.turned, time, axis=0)[5:-5], motion.turning[5:-5], atol=1e-3)
    shocks = motion.acceleration[:, 2] - motion.acceleration[:, 2].mean()
    spectrum = np.abs(np.fft.rfft(shocks * np.hanning(len(shocks))))
    strongest = np.fft.rfftfreq(len(shocks), 1e-3)[spectrum.argmax()] / movement.rate
    assert abs(strongest - round(strongest)) < 0.1


def test_who_climbs_gets_higher() -> None:
    time = np.arange(0, 8, 0.01)
    heights = {name: Movement(GAITS[name], np.random.default_rng(1)).at(time).height for name in ACTIVITIES}
    assert heights["stairs up"][-1] > 1 > -1 > heights["stairs down"][-1]
    assert np.ptp(heights["walk"]) == 0


def test_every_orientation_is_equally_likely() -> None:
    generator = np.random.default_rng(0)
    turned = np.stack([rotation(generator) for _ in range(3000)])
    np.testing.assert_allclose(turned @ turned.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turned.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turned), 1)
    assert np.abs(turned.mean(axis=0)).max() < 0.05
    np.testing.assert_allclose(turned.var(axis=0), 1 / 3, atol=0.03)
