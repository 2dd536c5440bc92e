"""Tiny videos whose frames are hard to find: reordered, joined, cut, mislabelled or damaged.

The lower edge of every frame states its number in black and white blocks, so that a frame proves which one it is.
"""

import contextlib
import io
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

HEIGHT, WIDTH = 48, 64
_BITS = 8


def numbered_frames(count: int, first: int = 0) -> NDArray[np.uint8]:
    """Frames [T, H, W, 3] that move and state their number."""
    frames = np.zeros((count, HEIGHT, WIDTH, 3), np.uint8)
    for place, number in enumerate(range(first, first + count)):
        frames[place] = 60 + number % 40
        frames[place, :40, number % 56 : number % 56 + 8] = 220
        for bit in range(_BITS):
            frames[place, 40:, 8 * bit : 8 * bit + 8] = 235 if number >> bit & 1 else 16
    return frames


def stated_number(frame: NDArray[np.uint8]) -> int:
    """The number that a frame [H, W, 3] states."""
    blocks = [frame[41:47, 8 * bit + 2 : 8 * bit + 6].mean() for bit in range(_BITS)]
    return sum(1 << bit for bit, brightness in enumerate(blocks) if brightness > 126)


def encoded(
    kind: str = "mp4",
    codec: str = "libx264",
    reordered: int = 0,
    frames: NDArray[np.uint8] | None = None,
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    file: dict[str, str] | None = None,
    x264: str = "",
) -> bytes:
    """A video with a key frame every 12 frames and up to `reordered` B-frames between other frames."""
    result = io.BytesIO()
    with av.open(result, "w", format=kind, options=file or {}) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixels
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, reordered
        stream.codec_context.time_base = time_base
        if codec == "libx264":
            fixed = f"keyint=12:min-keyint=12:scenecut=0:b-adapt=0:{x264}".rstrip(":")
            stream.options = {"crf": "10", "preset": "veryfast", "x264-params": fixed}
        for number, pixels_of_frame in enumerate(numbered_frames(40) if frames is None else frames):
            frame = av.VideoFrame.from_ndarray(pixels_of_frame, format="rgb24")
            frame.pts, frame.time_base = times[number] if times else number, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return result.getvalue()


def copied(video: bytes, kind: str, change: Callable[[list[Any]], list[Any]], **options: str) -> bytes:
    """The packets of a video in a new file, after a change of their list."""
    result = io.BytesIO()
    with av.open(io.BytesIO(video)) as source, av.open(result, "w", format=kind, options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in change([packet for packet in source.demux(video=0) if packet.size]):
            packet.stream = stream
            target.mux(packet)
    return result.getvalue()


def called_key_frames(packets: list[Any]) -> list[Any]:
    for packet in packets:
        packet.is_keyframe = True
    return packets


def shifted(ticks: int) -> Callable[[list[Any]], list[Any]]:
    def change(packets: list[Any]) -> list[Any]:
        for packet in packets:
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return packets

    return change


def from_second_key_frame(packets: list[Any]) -> list[Any]:
    second = [number for number, packet in enumerate(packets) if packet.is_keyframe][1]
    return packets[second:]


def with_edit_list(video: bytes, skipped: int) -> bytes:
    """An MP4 file whose edit list cuts this many ticks off its start."""
    place = video.index(b"elst") + 16
    (start,) = struct.unpack(">i", video[place : place + 4])
    return video[:place] + struct.pack(">i", start + skipped) + video[place + 4 :]


def with_display_matrix(video: bytes, *matrix: int) -> bytes:
    """An MP4 file that is displayed by (a, b, c, d): the pixel at column x, row y goes to (ax + cy, bx + dy)."""
    a, b, c, d = (value << 16 for value in matrix)
    place = video.index(b"tkhd") + 44
    stored = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return video[:place] + stored + video[place + 36 :]


def sound_with_cover() -> bytes:
    """A sound file with a picture attached to it."""
    result = io.BytesIO()
    with av.open(result, "w", format="mp4") as container:
        sound: Any = container.add_stream("aac", rate=8000)
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        for number in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 1024 * number
            container.mux(sound.encode(frame))
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered_frames(1)[0], format="rgb24")))
        container.mux(sound.encode(None))
        container.mux(cover.encode(None))
    return result.getvalue()


def damaged(video: bytes, packet: int) -> bytes:
    """The video with noise in the middle of one packet."""
    with av.open(io.BytesIO(video)) as container:
        packets = [bytes(each) for each in container.demux(video=0) if each.size]
    place = video.index(packets[packet]) + len(packets[packet]) // 3
    noise = np.random.default_rng(0).bytes(min(40, len(packets[packet]) // 2))
    return video[:place] + noise + video[place + len(noise) :]


def decoded(video: bytes) -> list[NDArray[np.uint8]]:
    """All frames, decoded one after another from the start of the file, up to the first error."""
    frames: list[NDArray[np.uint8]] = []
    with av.open(io.BytesIO(video)) as container, contextlib.suppress(av.FFmpegError):
        frames.extend(frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
    return frames


def _joined() -> bytes:
    return encoded("mpegts", reordered=2) + encoded("mpegts", reordered=2, frames=numbered_frames(30, 40))


def _overlapping() -> bytes:
    first = encoded("mpegts", reordered=2)
    second = encoded("mpegts", reordered=2, frames=numbered_frames(30, 40))
    return first + copied(second, "mpegts", shifted(20 * 3600 + 900), mpegts_copyts="1")


_VARIABLE = [*range(0, 1000, 40), *range(1000, 16000, 1000)]
_OPEN = "open-gop=1"

VIDEOS: dict[str, Callable[[], bytes]] = {
    "few key frames": lambda: encoded(),
    "B-frames": lambda: encoded(reordered=3),
    "open groups": lambda: encoded(reordered=3, x264=_OPEN),
    "open groups, MPEG-4": lambda: encoded("matroska", "mpeg4", reordered=2),
    "interlaced": lambda: encoded("mpegts", reordered=2, x264="interlaced=1"),
    "10 bits": lambda: encoded("matroska", reordered=2, pixels="yuv420p10le"),
    "B-frames in AVI": lambda: encoded("avi", reordered=2),
    "open groups in AVI": lambda: encoded("avi", reordered=3, x264=_OPEN),
    "MPEG-4 with B-frames in AVI": lambda: encoded("avi", "mpeg4", reordered=2),
    "B-frames in ASF": lambda: encoded("asf", reordered=2),
    "FLV": lambda: encoded("flv", reordered=2),
    "MPEG program stream": lambda: encoded("mpeg", "mpeg1video", reordered=2),
    "MPEG-2 without times": lambda: encoded("mpeg2video", "mpeg2video", reordered=2),
    "H.264 without times": lambda: encoded("h264", reordered=2),
    "transport stream": lambda: encoded("mpegts", reordered=2, x264=_OPEN),
    "joined, times restart": _joined,
    "joined, times overlap": _overlapping,
    "cut before its second key frame": lambda: copied(VIDEOS["open groups"](), "matroska", from_second_key_frame),
    "starts without a key frame": lambda: copied(VIDEOS["B-frames"](), "matroska", lambda packets: packets[5:]),
    "starts without a key frame, AVI": lambda: copied(encoded(codec="mpeg4"), "avi", lambda packets: packets[5:]),
    "cut at its start": lambda: encoded("mpegts", reordered=2)[188 * 20 :],
    "without its middle": lambda: (lambda ts: ts[: 188 * 30] + ts[188 * 45 :])(encoded("mpegts", reordered=2)),
    "edit list": lambda: with_edit_list(encoded(reordered=2), 7 * 512),
    "negative times": lambda: copied(encoded(reordered=2), "matroska", shifted(-50_000), avoid_negative_ts="disabled"),
    "huge time base": lambda: encoded(reordered=2, file={"video_track_timescale": "1000000000"}),
    "fragments": lambda: encoded(reordered=2, file={"movflags": "frag_keyframe+empty_moov"}),
    "variable rate": lambda: encoded("matroska", reordered=2, times=_VARIABLE, time_base=Fraction(1, 1000)),
    "all packets called key frames": lambda: copied(encoded(codec="mpeg4", reordered=2), "mp4", called_key_frames),
    "all packets called key frames, H.264": lambda: copied(encoded(reordered=2), "mp4", called_key_frames),
    "VP8": lambda: encoded("webm", "libvpx"),
    "GIF": lambda: encoded("gif", "gif", pixels="rgb8"),
    "damaged": lambda: damaged(encoded("matroska", reordered=2), 17),
    "damaged, MPEG-2": lambda: damaged(encoded("matroska", "mpeg2video", reordered=2), 17),
}
