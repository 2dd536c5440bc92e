"""Every decoder gives the same upright pictures of any file; what is broken is a bad sample; memory stays flat."""

import ctypes
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import fork_server
import numpy as np
import places
import pytest
import torch
from numpy.typing import NDArray

from jepa.modality import BadSampleError
from modalities.video.decode.stored import VideoInfo, reduced
from modalities.video.decode.video import Decoder, EncodedVideo, usable_decoder

ODD = places.REAL_DATA / "odd"
DECODERS: tuple[Decoder, ...] = ("pyav", "decord", "torchcodec")


def usable(decoder: Decoder) -> bool:
    try:
        return bool(usable_decoder(decoder))
    except ValueError:
        return False


USABLE = [decoder for decoder in DECODERS if usable(decoder)]
each_decoder = pytest.mark.parametrize("decoder", USABLE)


def frames_of(frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """A bright square moves over colour gradients, without any symmetry: [T, H, W, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    still = np.stack([200 * x / width, 200 * y / height, 100 + 0 * x], -1)
    moving = np.repeat(still[None], frames, 0)
    side = max(2, min(height, width) // 4)
    for number, frame in enumerate(moving):
        left = number * (width - side) // max(1, frames - 1)
        frame[:side, left : left + side] = 255
    return moving.astype(np.uint8)


def encoded(
    frames: NDArray[np.uint8],
    kind: str = "mp4",
    codec: str = "h264",
    pixels: str = "yuv420p",
    key_every: int = 12,
    rotation: int = 0,
    times: list[int] | None = None,
) -> bytes:
    """The frames as a file at 25 frames per second, or at these times in 1/25 s."""
    stream_of_bytes = io.BytesIO()
    with av.open(stream_of_bytes, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        stream.codec_context.gop_size = key_every
        stream.codec_context.time_base = Fraction(1, 25)
        if codec == "h264":
            stream.codec_context.options = {"crf": "10", "preset": "veryfast"}
        if rotation:
            stream.set_display_rotation(rotation)
        for number, pixels_of_frame in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels_of_frame, format="rgb24")
            frame.pts, frame.time_base = times[number] if times else number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return stream_of_bytes.getvalue()


def plainly_decoded(data: bytes | Path) -> NDArray[np.uint8]:
    """All frames from PyAV, upright, by an independent loop."""
    return np.stack([upright(frame) for frame in plain_frames(data)])


def plain_frames(data: bytes | Path) -> list[Any]:
    with av.open(str(data) if isinstance(data, Path) else io.BytesIO(data)) as container:
        return list(container.decode(container.streams.best("video")))


def upright(frame: Any) -> NDArray[np.uint8]:
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)


def assert_same_frames(found: torch.Tensor, expected: NDArray[np.uint8], tolerance: float) -> None:
    assert found.dtype == torch.uint8
    assert found.shape == (len(expected), 3, *expected.shape[1:3])
    difference = (found.permute(0, 2, 3, 1).float() - torch.from_numpy(expected.copy()).float()).abs().mean((1, 2, 3))
    assert difference.max() < tolerance


FILES = {
    "plain": encoded(frames_of(40, 48, 64)),
    "odd sizes": encoded(frames_of(20, 49, 67), pixels="yuv444p"),
    "tiny": encoded(frames_of(20, 18, 34)),
    "on its side": encoded(frames_of(20, 64, 96), rotation=90),
    "on its other side": encoded(frames_of(20, 64, 96), rotation=-90),
    "upside down": encoded(frames_of(20, 64, 96), rotation=180),
    "one frame": encoded(frames_of(1, 48, 64)),
    "variable rate": encoded(frames_of(10, 48, 64), times=[0, 1, 2, 10, 11, 12, 30, 31, 60, 61]),
    "10 bit": encoded(frames_of(20, 48, 64), pixels="yuv420p10le"),
    "grey": encoded(frames_of(20, 48, 64), pixels="gray"),
    "Matroska, no count": encoded(frames_of(40, 48, 64), kind="matroska"),
    "AVI": encoded(frames_of(40, 48, 64), kind="avi", codec="mpeg4"),
    "MPEG stream": encoded(frames_of(40, 48, 64), kind="mpeg", codec="mpeg1video"),
    "all key frames": encoded(frames_of(40, 48, 64), kind="avi", codec="mjpeg", pixels="yuvj420p"),
}
MAY_REFUSE = {"MPEG stream"}  # only PyAV's frames are checked, so it alone reads all kinds


@each_decoder
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("stored", ["in memory", "as a file"])
def test_any_frames_in_any_order_equal_those_of_a_plain_decode(
    name: str, stored: str, decoder: Decoder, tmp_path: Path
) -> None:
    (path := tmp_path / "video").write_bytes(FILES[name])
    video = EncodedVideo(path if stored == "as a file" else FILES[name], "a video", decoder)
    if decoder != "pyav" and name in MAY_REFUSE:
        with pytest.raises(BadSampleError, match="may give wrong frames, because"):
            video.read([0], None)
        return
    expected = plainly_decoded(FILES[name])
    info = pickle.loads(pickle.dumps(video)).info
    assert (info.frames, info.height, info.width) == expected.shape[:3]
    last = info.frames - 1
    for indices in ([last, 0, last // 2, 0], [last], [last // 2, last // 3], list(range(info.frames))):
        assert_same_frames(video.read(indices, None), expected[indices], tolerance=4 if name == "10 bit" else 0.6)
    assert info.fps == pytest.approx(25 if name != "variable rate" else 4, rel=0.15)


@each_decoder
@pytest.mark.parametrize("name", ["plain", "on its side", "odd sizes", "Matroska, no count"])
def test_frames_are_reduced_to_the_given_side_and_never_enlarged(name: str, decoder: Decoder) -> None:
    video = EncodedVideo(FILES[name], decoder=decoder)
    whole = torch.from_numpy(plainly_decoded(FILES[name]).copy()).permute(0, 3, 1, 2)
    for side in (16, 32, 33):
        found = video.read([3, 15, 3], side)
        expected = reduced(whole[[3, 15, 3]], side)
        assert min(found.shape[2:]) == side
        assert found.shape == expected.shape
        assert (found.float() - expected.float()).abs().mean() < 4
    assert video.read([0], 1000).shape == whole[:1].shape


def damaged(how: str) -> bytes:
    good = FILES["plain"]
    match how:
        case "empty":
            return b""
        case "html":
            return b"<html><body>404 Not Found</body></html>\n"
        case "cut before the index":
            return good[: len(good) // 2]
        case "noise":
            return np.random.default_rng(0).bytes(5000)
        case "sound only":
            stream_of_bytes = io.BytesIO()
            with av.open(stream_of_bytes, "w", format="mp4") as container:
                stream = container.add_stream("aac", rate=8000)
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 8000, 0
                container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
            return stream_of_bytes.getvalue()
        case _:
            raise ValueError(how)


@pytest.mark.parametrize("decoder", [*USABLE, "auto"])
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("empty", "the file is empty"),
        ("html", "not a video of a known format"),
        ("cut before the index", "not a video of a known format, or cut off before its index"),
        ("noise", "not a video of a known format"),
        ("sound only", "no video stream"),
    ],
)
def test_a_broken_video_is_a_bad_sample_with_its_path_and_a_reason(
    how: str, reason: str, decoder: Decoder, tmp_path: Path
) -> None:
    (path := tmp_path / "broken.mp4").write_bytes(damaged(how))
    with pytest.raises(BadSampleError, match=reason) as caught:
        EncodedVideo(path, decoder=decoder).info  # noqa: B018
    assert pickle.loads(pickle.dumps(caught.value)).source == str(path)
    with pytest.raises(BadSampleError, match=reason) as caught:
        EncodedVideo(damaged(how), "shard/broken.mp4", decoder).read([0], 8)
    assert caught.value.source == "shard/broken.mp4"


@each_decoder
def test_the_frames_of_a_truncated_file_are_right(decoder: Decoder) -> None:
    whole = encoded(frames_of(60, 48, 64), kind="matroska")
    expected = plainly_decoded(whole)
    video = EncodedVideo(whole[: len(whole) * 2 // 3], "cut", decoder)
    frames = video.info.frames
    assert 20 < frames < 60
    assert_same_frames(video.read([0, 10], None), expected[[0, 10]], tolerance=0.6)
    assert_same_frames(video.read([frames - 3], None), expected[[frames - 3]], tolerance=0.6)


@each_decoder
def test_a_missing_file_is_a_bad_sample_and_a_wrong_index_is_an_index_error(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(BadSampleError, match="No such file"):
        EncodedVideo(tmp_path / "none.mp4", decoder=decoder).read([0], None)
    with pytest.raises(IndexError, match=r"frame 40.*0 to 39"):
        EncodedVideo(FILES["plain"], decoder=decoder).read([40], None)


@each_decoder
def test_a_name_that_is_not_utf8_is_opened(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9.mp4"
    path.write_bytes(encoded(frames_of(3, 48, 64)))
    assert EncodedVideo(path, decoder=decoder).read([2], None).shape == (1, 3, 48, 64)


def test_auto_reads_all_kinds_of_files() -> None:
    assert usable_decoder("auto") == "pyav"
    for data in FILES.values():
        expected = plainly_decoded(data)
        assert_same_frames(EncodedVideo(data).read([0], None), expected[:1], tolerance=4)


def test_a_clip_is_chosen_and_read_with_one_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    openings = []
    original = av.open
    monkeypatch.setattr(av, "open", lambda *given: openings.append(given) or original(*given))
    infos: list[VideoInfo] = []
    clip = EncodedVideo(FILES["plain"], decoder="pyav").clip(
        lambda info: infos.append(info) or [5, info.frames - 1], 16
    )
    assert clip.shape == (2, 3, 16, 21)
    assert infos[0].frames == 40
    assert len(openings) == 1


BLOCKED = """
import sys
import modalities.video.decode.video as decode
assert not {"av", "decord", "torchcodec"} & set(sys.modules), "heavy packages are imported where they are used"
blocked = {"torchcodec", "decord"}
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in blocked:
            raise ImportError(f"No module named '{name}'")
sys.meta_path.insert(0, Blocked())
print(decode.usable_decoder("auto"))
blocked.add("av")
for name in [name for name in sys.modules if name.split(".")[0] == "av" or name == "modalities.video.decode.pyav_"]:
    del sys.modules[name]
decode._missing.cache_clear()
for decoder in ("auto", "decord", "torchcodec"):
    try:
        decode.usable_decoder(decoder)
    except ValueError as error:
        print(error)
"""


def test_auto_is_pyav_and_errors_name_a_remedy() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True)
    first, auto, decord, torchcodec = done.stdout.splitlines()
    assert first == "pyav"
    assert "decoder 'pyav' cannot be imported: No module named 'av'" in auto
    assert "pip install 'av" in auto
    assert "'decord'" in decord
    assert "No module named 'decord'. To install it: pip install" in decord
    assert "FFmpeg's shared libraries" in torchcodec


def tells_allocated_memory() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallinfo2")


NAMES = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class Allocated(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES]


def allocated() -> float:
    """MB; resident memory also counts gaps, which differ from run to run."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = Allocated
    found = ask()
    return float((found.uordblks + found.hblkhd) / 2**20)


def print_growth(folder: str, *decoders: Decoder) -> None:
    """In a process of its own: MB that the last 300 of 400 clips leave behind, for each decoder."""
    files = sorted(Path(folder).iterdir())
    for decoder in decoders:
        for number in range(400):
            EncodedVideo(files[number % len(files)], decoder=decoder).clip(lambda info: range(0, info.frames, 3), 24)
            if number == 99:
                start = allocated()
        print(allocated() - start)


@pytest.mark.skipif(not tells_allocated_memory(), reason="asks the C library of Linux for its memory")
def test_memory_stays_flat_over_many_clips_with_each_decoder(tmp_path: Path) -> None:
    for number, (height, width) in enumerate([(48, 64), (64, 96), (56, 80), (36, 64)]):
        (tmp_path / f"{number}.mp4").write_bytes(encoded(frames_of(12, height, width)))
    done = fork_server.run("call", __file__, "print_growth", str(tmp_path), *USABLE)
    assert done.returncode == 0, done.stderr
    grown = [float(line) for line in done.stdout.split()]
    assert len(grown) == len(USABLE)
    assert max(grown) < 1


def odd_files() -> Iterator[dict[str, object]]:
    if ODD.exists():
        entries = json.loads((ODD / "manifest.json").read_text())
        yield from (entry for entry in entries if str(entry["file"]).startswith("video_"))


@pytest.mark.real_data
@pytest.mark.skipif(not ODD.exists(), reason="the real videos are not beside this checkout")
@each_decoder
def test_real_unusual_and_broken_files_are_decoded_right_or_are_bad_samples(decoder: Decoder) -> None:
    right = 0
    for entry in odd_files():
        path = ODD / str(entry["file"])
        found, info = opened(EncodedVideo(path, decoder=decoder))
        if info is None:
            assert decoder != "pyav" or entry["av"] != "ok", path
            continue
        assert entry["av"] == "ok", path
        frames = plain_frames(path)
        assert info.frames == len(frames)
        expected = np.stack([upright(frames[index]) for index in ends(info)])
        assert_same_frames(found, expected, tolerance=4 if "10bits" in path.name else 0.6)
        right += 1
    assert right >= {"pyav": 45, "torchcodec": 35, "decord": 35}[decoder]


def ends(info: VideoInfo) -> list[int]:
    return [info.frames - 1, 0, info.frames // 2]


def opened(video: EncodedVideo) -> tuple[torch.Tensor, VideoInfo | None]:
    """Some frames and the facts; no facts if the sample is bad."""
    try:
        return video.clip(ends, None), video.info
    except BadSampleError as bad:
        complete = bad.source == str(video.source) and 0 < len(bad.reason) <= 200
        return torch.empty(0), None if complete else VideoInfo(0, 0.0, 0, 0)
