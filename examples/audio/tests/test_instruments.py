"""The instruments: notes have their labelled pitch and onset; clips are functions of (seed, split, index)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from jepa_audio import orchestra
from jepa_audio.instruments import INSTRUMENTS, RATE, play
from jepa_audio.orchestra import Orchestra, OrchestraConfig
from jepa_audio.recording import Clip, record
from jepa_audio.waves import read_wave
from modalities.storage.folders import FileKind, class_folders


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def read(path: Path) -> Tensor:
    return read_wave(path, RATE)


@pytest.mark.parametrize("instrument", INSTRUMENTS)
@pytest.mark.parametrize("pitch", [110.0, 333.0, 880.0])
def test_a_note_has_its_pitch(instrument: str, pitch: float) -> None:
    """Most of its power lies within 3 % of multiples of the pitch, which allows for vibrato; bells have partials."""
    times = np.arange(RATE) / RATE
    wave = play(instrument, pitch, times, np.random.default_rng(1))
    assert np.isfinite(wave).all()
    assert np.abs(wave).max() == pytest.approx(1)
    power = np.abs(np.fft.rfft(wave * np.hanning(RATE))) ** 2  # one bin per hertz
    multiples: Sequence[float]
    multiples = (0.5, 1, 1.2, 1.5, 2, 2.6, 3, 4.1, 5.4) if instrument == "bell" else range(1, 20)
    near = np.zeros(len(power), dtype=bool)
    for centre in (multiple * pitch for multiple in multiples):
        around = min(0.03 * centre, 0.2 * pitch)
        near[int(centre - around) : int(centre + around) + 2] = True
    assert power[near].sum() > 0.7 * power.sum()


def test_a_clip_is_a_function_of_seed_split_and_index() -> None:
    clip, again = record(3, 1, 47), record(3, 1, 47)
    np.testing.assert_array_equal(clip.wave, again.wave)
    assert (clip.instrument, clip.pitch, clip.onset) == (again.instrument, again.pitch, again.onset)
    for other in (record(4, 1, 47), record(3, 2, 47), record(3, 1, 57)):
        assert other.instrument == clip.instrument
        assert (other.pitch, other.onset) != (clip.pitch, clip.onset)
        assert np.abs(np.corrcoef(other.wave, clip.wave)[0, 1]) < 0.5


def test_classes_are_balanced_and_independent_of_pitch_and_onset() -> None:
    clips = [record(0, 0, index) for index in range(300)]
    found = np.array([[INSTRUMENTS.index(clip.instrument), clip.pitch, clip.onset] for clip in clips])
    assert np.bincount(found[:, 0].astype(int)).tolist() == [30] * len(INSTRUMENTS)
    for column, (low, high) in ((1, (45, 81)), (2, (0.2, 0.6))):
        assert low <= found[:, column].min() < found[:, column].max() <= high
        means = [found[found[:, 0] == one, column].mean() for one in range(len(INSTRUMENTS))]
        assert np.ptp(means) < 0.35 * (high - low)


def test_most_of_the_sound_comes_after_the_onset() -> None:
    later = []
    for index in range(60):
        clip = record(0, 0, index)
        start, wave = round(clip.onset * RATE), clip.wave.astype(float)
        later.append((wave[start:] ** 2).mean() > 4 * (wave[: start - 160] ** 2).mean())
    assert np.mean(later) > 0.75  # the note behind may end before, or begin earlier


def test_clips_are_written_once_into_class_folders(cache: Path) -> None:
    clips = Orchestra(OrchestraConfig(train=40), "train", read)
    assert (len(clips), sorted(clips.folder.iterdir())[0].name) == (40, "bass")
    written = {path: path.stat().st_mtime_ns for path in cache.rglob("*.wav")}
    again = Orchestra(OrchestraConfig(train=40), "train", read)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.wav")} == written
    clip = record(0, 0, 13)
    assert again[13].labels == {"class": INSTRUMENTS.index(clip.instrument), "pitch": clip.pitch, "onset": clip.onset}
    np.testing.assert_array_equal(again[13].inputs.numpy() * 2**15, clip.wave)
    assert class_folders(clips.folder, FileKind("sound", (".wav",))) == INSTRUMENTS


def test_an_interrupted_recording_leaves_no_partial_data_set(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(seed: int, split: int, index: int) -> Clip:
        if index == 5:
            raise KeyboardInterrupt
        return record(seed, split, index)

    with monkeypatch.context() as broken:
        broken.setattr(orchestra, "record", failing)
        with pytest.raises(KeyboardInterrupt):
            Orchestra(OrchestraConfig(train=10), "train", read)
    whole = Orchestra(OrchestraConfig(train=10), "train", read)
    assert len(list(cache.rglob("*.wav"))) == len(whole) == 10
    assert not list(cache.rglob("*.part-*"))


def test_an_empty_split_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one clip"):
        OrchestraConfig(test=0)
