"""The frame asked for is the frame given, as a decode of the whole file gives it, or the sample is bad."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import odd_videos
import pytest
from numpy.typing import NDArray

from jepa.modality import BadSampleError
from modalities.video.decode.video import Decoder, EncodedVideo, usable_decoder

BAD_FRAMES = {"damaged": 7, "damaged, MPEG-2": 7, "without its middle": 3, "starts without a key frame, AVI": 7}


def usable_decoders() -> Iterator[Decoder]:
    others: tuple[Decoder, ...] = ("decord", "torchcodec")
    yield "pyav"
    for decoder in others:
        with contextlib.suppress(ValueError):
            yield usable_decoder(decoder)


DECODERS = list(usable_decoders())


def clips(frames: int) -> list[list[int]]:
    """Sorted frame numbers of some clips: dense, spread, single ones, and all frames."""
    chance = random.Random(0)
    some = [sorted(chance.sample(range(frames), chance.choice([1, 2, 4, 8]))) for _ in range(6)]
    return [*some, [12], [24], [0], [frames - 1], list(range(frames))]


def read(video: EncodedVideo, indices: Sequence[int]) -> NDArray[np.uint8] | None:
    """Frames [T, H, W, 3]; None if the sample is bad."""
    try:
        return video.read(indices, None).permute(0, 2, 3, 1).numpy()
    except BadSampleError:
        return None


def differs(frame: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    return bool(np.abs(frame.astype(int) - other).mean() > 1)


@pytest.mark.parametrize("name", odd_videos.VIDEOS)
def test_clips_equal_the_frames_of_a_full_decode(name: str, tmp_path: Path) -> None:
    data = odd_videos.VIDEOS[name]()
    expected = odd_videos.decoded(data)
    (path := tmp_path / "video").write_bytes(data)
    for stored in (path, data):  # with an index that is kept, and without
        video = EncodedVideo(stored)
        assert video.info.frames == len(expected)
        assert_right(video, expected, may_be_bad=name in BAD_FRAMES)
    singles = [read(video, [index]) for index in range(len(expected))]
    assert sum(single is None for single in singles) == BAD_FRAMES.get(name, 0)
    stated = [odd_videos.stated_number(single[0]) for single in singles if single is not None]
    assert stated == sorted(set(stated))


@pytest.mark.parametrize("decoder", DECODERS[1:])
def test_other_decoders_give_the_same_frames_or_refuse_a_file(decoder: Decoder, tmp_path: Path) -> None:
    refused = []
    for name, make in odd_videos.VIDEOS.items():
        (path := tmp_path / name).write_bytes(data := make())
        video = EncodedVideo(path, decoder=decoder)
        if read(video, [0]) is None:
            refused.append(name)
        elif name not in BAD_FRAMES:  # damage goes unnoticed
            assert_right(video, odd_videos.decoded(data), may_be_bad=False)
    assert {"B-frames", "open groups", "variable rate"}.isdisjoint(refused)
    assert {"B-frames in AVI", "joined, times restart", "starts without a key frame", "edit list"} <= set(refused)


def assert_right(video: EncodedVideo, expected: Sequence[NDArray[np.uint8]], may_be_bad: bool) -> None:
    for indices in clips(len(expected)):
        found = read(video, indices)
        assert found is not None or may_be_bad
        if found is not None:
            wrong = [index for index, frame in zip(indices, found, strict=True) if differs(frame, expected[index])]
            assert not wrong, indices
