"""The frame asked for is the frame given, as a decode of the whole file gives it, or the sample is bad."""

import contextlib
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import odd_videos
import pytest
from numpy.typing import NDArray
from odd_videos import encoded

from jepa.modality import BadSampleError
from modalities.video.decode import kept, pyav_
from modalities.video.decode.video import Decoder, EncodedVideo, usable_decoder

BAD_FRAMES = {"damaged": 7, "damaged, MPEG-2": 7, "without its middle": 3, "starts without a key frame, AVI": 7}


def usable_decoders() -> Iterator[Decoder]:
    others: tuple[Decoder, ...] = ("decord", "torchcodec")
    yield "pyav"
    for decoder in others:
        with contextlib.suppress(ValueError):
            yield usable_decoder(decoder)


DECODERS = list(usable_decoders())


def in_child(compute: Callable[[], int]) -> int:
    """The small number that a forked process computes."""
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            os._exit(compute())
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


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


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
        ((1, 0, 0, -1), lambda frame: frame[::-1]),
        ((0, 1, 1, 0), lambda frame: frame.transpose(1, 0, 2)),
        ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
        ((0, -1, -1, 0), lambda frame: np.rot90(frame[:, ::-1], -1)),
    ],
)
def test_turned_and_mirrored_videos_are_upright(
    matrix: tuple[int, ...], upright: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> None:
    data = odd_videos.with_display_matrix(encoded(), *matrix)
    expected = upright(odd_videos.decoded(data)[5])
    for decoder in DECODERS:
        found = read(EncodedVideo(data, decoder=decoder), [5])
        assert (found is not None) if decoder == "pyav" else (found is None or matrix == (0, 1, -1, 0))
        assert found is None or (found[0].shape == expected.shape and not differs(found[0], expected))


def test_times_of_a_variable_rate_are_known_and_others_have_a_constant_rate() -> None:
    info = EncodedVideo(odd_videos.VIDEOS["variable rate"]()).info
    assert info.seconds is not None
    assert info.seconds[[0, 1, 24, 25, 39]].tolist() == pytest.approx([0, 0.04, 0.96, 1, 15])
    for name in ("B-frames", "FLV", "joined, times restart", "negative times", "huge time base"):
        info = EncodedVideo(odd_videos.VIDEOS[name]()).info
        assert (info.seconds, info.fps) == (None, pytest.approx(25, rel=0.01))


def test_the_cover_of_a_sound_file_is_not_a_video() -> None:
    with pytest.raises(BadSampleError, match="its only picture is attached to sound"):
        EncodedVideo(odd_videos.sound_with_cover()).read([0], None)


def test_a_video_without_a_decoder_is_a_bad_sample_with_its_reason() -> None:
    data = encoded("matroska", "mpeg4").replace(b"V_MPEG4/ISO/ASP", b"V_MPEG9/ISO/ASP")
    with pytest.raises(BadSampleError, match="its video has an unknown codec"):
        EncodedVideo(data).read([0], None)


@pytest.mark.parametrize("is_distorted", [True, False])
def test_frames_of_another_shape_are_not_distorted(is_distorted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encoded("mpegts")
    monkeypatch.setattr(odd_videos, "WIDTH", 128)
    monkeypatch.setattr(odd_videos, "HEIGHT", 48 if is_distorted else 96)
    video = EncodedVideo(first + encoded("mpegts"))
    assert read(video, [20])[0].shape == (48, 64, 3)
    if not is_distorted:
        assert read(video, [60])[0].shape == (48, 64, 3)
        return
    with pytest.raises(BadSampleError, match="frames change their shape, from 64 x 48 to 128 x 48 pixels"):
        video.read([20, 60], None)


def test_a_file_is_indexed_once_and_a_long_one_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT", kept.Kept())
    (path := tmp_path / "video.mp4").write_bytes(encoded())
    other = encoded(frames=odd_videos.numbered_frames(50, 100))
    scans: list[int] = []
    opened: list[int] = []
    original_scan, original_open = pyav_.read_packets, av.open
    monkeypatch.setattr(pyav_, "read_packets", lambda packets: scans.append(1) or original_scan(packets))
    monkeypatch.setattr(av, "open", lambda *given: opened.append(1) or original_open(*given))
    video = EncodedVideo(path)
    for index in (3, 30, 3):
        assert odd_videos.stated_number(read(video, [index])[0]) == index
    assert (len(scans), len(opened)) == (1, 3)
    monkeypatch.setattr(kept, "_LONG", 1)
    for index in (5, 20, 7):
        assert odd_videos.stated_number(read(video, [index])[0]) == index
    assert (len(scans), len(opened)) == (1, 4)
    assert (
        in_child(lambda: odd_videos.stated_number(read(video, [9])[0])) == 9
    )  # with a position of its own in the file
    assert odd_videos.stated_number(read(video, [11])[0]) == 11
    path.write_bytes(other)
    assert video.info.frames == 50
    assert odd_videos.stated_number(read(video, [11])[0]) == 111


def test_old_indexes_and_readers_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT", keeper := kept.Kept())
    monkeypatch.setattr(kept, "_LONG", 1)
    data = encoded()
    for name in range(8):
        (tmp_path / f"{name}.mp4").write_bytes(data)
        EncodedVideo(tmp_path / f"{name}.mp4").read([0], None)
    assert (len(keeper._indexes), len(keeper._readers)) == (8, 4)
    each = next(iter(keeper._indexes.values())).nbytes
    assert keeper._index_bytes == 8 * each
    monkeypatch.setattr(kept, "_INDEX_BYTES", 3 * each)
    EncodedVideo(tmp_path / "0.mp4").read([0], None)
    assert [version.path.stem for version in keeper._indexes] == ["6", "7", "0"]
