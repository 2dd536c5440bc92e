"""Clips: uniform in time, spread over short videos, and cropped with one box."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from modalities.image.views import center_view, random_resized_crop
from modalities.video.decode.stored import VideoInfo
from modalities.video.views import (
    center_clip_view,
    even_frames,
    frame_spacing,
    random_clip,
    random_frames,
    spread_clip_view,
)


def info(frames: int, fps: float = 25.0) -> VideoInfo:
    return VideoInfo(frames, fps, 48, 64)


def draws(video: VideoInfo, frames: int, spacing: float, count: int) -> list[list[int]]:
    return [random_frames(video, frames, spacing, Generator().manual_seed(seed)) for seed in range(count)]


@pytest.mark.parametrize("spacing", [1.0, 2.0, 2.5, 25 / 8, 0.4, 4.39])
@pytest.mark.parametrize("length", [20, 41, 100])
def test_every_clip_start_that_fits_is_equally_likely_including_the_last(spacing: float, length: int) -> None:
    clips = draws(info(length), 8, spacing, 3000)
    starts, ends = Counter(clip[0] for clip in clips), Counter(clip[-1] for clip in clips)
    assert min(starts) == 0
    assert max(ends) == length - 1
    span = clips[0][-1] - clips[0][0]
    assert set(starts) == set(range(length - span))
    expected = len(clips) / len(starts)
    assert max(starts.values()) < expected + 5 * expected**0.5 + 1
    assert min(starts.values()) > expected - 5 * expected**0.5 - 1
    shapes = {tuple(index - clip[0] for index in clip) for clip in clips}
    assert len(shapes) == 1
    fitting = min(spacing, (length - 1) / 7)
    assert all(abs(offset - fitting * number) <= 0.5 for number, offset in enumerate(shapes.pop()))


@pytest.mark.parametrize("length", [1, 2, 5, 9, 15])
@pytest.mark.parametrize("spacing", [1.0, 3.0])
def test_a_clip_of_a_short_video_covers_all_of_its_frames(length: int, spacing: float) -> None:
    for clip in [*draws(info(length), 16, spacing, 5), even_frames(info(length), 16, spacing)]:
        assert clip == sorted(clip)
        assert set(clip) == set(range(length))
        assert max(Counter(clip).values()) - min(Counter(clip).values()) <= 2


def test_even_clips_range_from_the_start_to_the_end_of_the_video() -> None:
    clips = [even_frames(info(101), 16, 2.0, clip, 5) for clip in range(5)]
    assert [clip[0] for clip in clips] == [0, 18, 35, 52, 70]
    assert clips[-1][-1] == 100
    single = even_frames(info(101), 16, 2.0)
    assert single[0] == 100 - single[-1] == 35


def test_fps_sets_the_frame_rate_of_a_clip_for_every_video_rate() -> None:
    for fps in (10.0, 24.0, 29.97, 60.0):
        clip = even_frames(info(1000, fps), 16, frame_spacing(info(1000, fps), 5.0, step=1))
        assert (clip[-1] - clip[0]) / fps == pytest.approx(15 / 5, abs=0.6 / fps)
    assert frame_spacing(info(9), None, step=3) == 3


def test_clips_of_a_variable_rate_have_the_frames_nearest_to_evenly_spaced_times() -> None:
    times = np.array([*np.arange(40) / 40, *np.arange(1.0, 41.0)])  # 40 frames in a second, then one a second
    video = VideoInfo(80, 79 / 40, 48, 64, times)
    clips = [random_frames(video, 8, frame_spacing(video, 1.0, 1), Generator().manual_seed(seed)) for seed in range(99)]
    for clip in [*clips, even_frames(video, 8, frame_spacing(video, 1.0, 1))]:
        assert np.diff(times[clip]).min() > 0.4
        assert np.diff(times[clip]).max() <= 1.5
    starts = times[[clip[0] for clip in clips]]
    assert starts.min() < 2
    assert starts.max() > 31
    dense = even_frames(video, 5, frame_spacing(video, 40.0, 1), 0, 2)
    assert dense == [0, 1, 2, 3, 4]
    assert even_frames(video, 3, frame_spacing(video, 0.01, 1)) == [0, 59, 79]  # over the whole length


def clip_of(frames: int, height: int, width: int) -> Tensor:
    return torch.randint(256, (frames, height, width, 3), dtype=torch.uint8).permute(0, 3, 1, 2)


def test_all_frames_get_the_crop_of_an_image() -> None:
    clip = clip_of(5, 50, 70)
    for seed in range(20):
        view = random_clip(clip, (32, 48), (0.3, 1.0), (0.75, 1.35), True, Generator().manual_seed(seed))
        assert view.shape == (3, 5, 32, 48)
        assert view.dtype == torch.uint8
        for number, frame in enumerate(clip):
            alone = random_resized_crop(frame, (32, 48), (0.3, 1.0), (0.75, 1.35), True, Generator().manual_seed(seed))
            assert (view[:, number].int() - alone.int()).abs().max() <= 1
    assert (center_clip_view(clip, (32, 32))[:, 2].int() - center_view(clip[2], (32, 32)).int()).abs().max() <= 1


@pytest.mark.parametrize(("height", "width"), [(20, 50), (50, 20)])
def test_crops_are_evenly_spaced_along_the_longer_side(height: int, width: int) -> None:
    clip = clip_of(4, height, width)
    first, middle, last = (spread_clip_view(clip, (20, 20), view, 3) for view in range(3))
    whole = clip.transpose(0, 1)
    assert torch.equal(first, whole[..., :20, :20])
    assert torch.equal(last, whole[..., -20:, -20:])
    assert torch.equal(middle, center_clip_view(clip, (20, 20)))
    assert torch.equal(spread_clip_view(clip, (20, 20), 0, 1), middle)


def test_the_same_generator_gives_the_same_clip() -> None:
    clip = clip_of(3, 40, 40)
    views = [random_clip(clip, (16, 16), (0.3, 1.0), (0.75, 1.35), True, Generator().manual_seed(4)) for _ in "ab"]
    assert torch.equal(*views)
    assert draws(info(90), 16, 2.0, 9) == draws(info(90), 16, 2.0, 9)
