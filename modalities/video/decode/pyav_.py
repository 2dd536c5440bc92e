"""Decoding with PyAV, which bundles FFmpeg's libraries and reads the most kinds of files."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import av
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from torch import Tensor

from modalities.video.decode.stored import UnreadableError, VideoInfo, reduced_size

_WORTH_A_SEEK = 12  # distance to the next key frame, in frames, from which on seeking is cheaper than decoding


@dataclass(frozen=True)
class _Index:
    """Display order of the frames, and where decoding can start, from the packets."""

    count: int
    numbers: dict[int, int]  # of each frame, by its time in the stream's time base; empty if times are unusable
    keys: list[int]  # numbers of the key frames; frame 0 counts as one
    key_times: list[int]  # seek target of each


class PyavReader:
    """A video opened with PyAV; it decodes in one thread."""

    def __init__(self, source: Path | bytes) -> None:
        self._source = source
        self._reformatter = VideoReformatter()
        self._container, self._stream = self._start()
        try:
            self._index = self._scan()
            first = self._first_frame()
            self._turns = round(first.rotation / 90) % 4  # counterclockwise quarter turns that make it upright
            height, width = (first.width, first.height) if self._turns % 2 else (first.height, first.width)
            self.info = VideoInfo(self._index.count, self._rate(), height, width)
        except BaseException:
            self.close()
            raise

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        size = reduced_size(self.info.height, self.info.width, short_side)
        stored = size[::-1] if self._turns % 2 else size
        frames: dict[int, Tensor] = {}
        for key, wanted in self._runs(sorted(set(indices))):
            frames |= self._decode(key, wanted, stored)
        together = torch.stack([frames[index] for index in indices])  # [T, H, W, 3]
        return torch.rot90(together, self._turns, (1, 2)).permute(0, 3, 1, 2)

    def close(self) -> None:
        self._container.close()

    def _start(self) -> tuple[InputContainer, VideoStream]:
        try:
            container = av.open(str(self._source) if isinstance(self._source, Path) else BytesIO(self._source), "r")
        except av.FFmpegError as error:
            raise UnreadableError(UnreadableError.NOT_A_VIDEO) from error
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream):
            container.close()
            raise UnreadableError(UnreadableError.NO_STREAM)
        stream.codec_context.thread_count = 1  # loaders have a worker per core
        return container, stream

    def _restart(self) -> None:
        self._container.close()
        self._container, self._stream = self._start()

    def _scan(self) -> _Index:
        """Read all packets without decoding them."""
        times, keys, usable = [], {}, True
        for packet in self._container.demux(self._stream):
            if packet.size == 0:
                continue
            if packet.is_keyframe and packet.pts is not None:
                keys[packet.pts] = packet.pts if packet.dts is None else packet.dts
            if not packet.is_discard:
                usable &= packet.pts is not None
                times.append(packet.pts or 0)
        times.sort()
        if not usable or len(set(times)) < len(times):
            self._restart()
            return _Index(sum(1 for _ in self._frames()), {}, [0], [0])
        starts = {0: times[0] if times else 0}
        starts |= {bisect_left(times, time): decoded for time, decoded in sorted(keys.items())}
        numbers = {time: number for number, time in enumerate(times)}
        return _Index(len(times), numbers, list(starts), list(starts.values()))

    def _first_frame(self) -> VideoFrame:
        if not self._seek(self._index.key_times[0]):
            self._restart()
        first = next(self._frames(), None)
        if first is None:
            raise UnreadableError("no frame can be decoded")
        return first

    def _rate(self) -> float:
        """Frames per second from the times of the first and the last frame, otherwise from the header."""
        times = list(self._index.numbers)
        if len(times) > 1 and self._stream.time_base:
            return float((len(times) - 1) / ((times[-1] - times[0]) * self._stream.time_base))
        return float(self._stream.average_rate or self._stream.guessed_rate or 25)

    def _runs(self, wanted: list[int]) -> Iterator[tuple[int, list[int]]]:
        """Groups of frames to decode in one pass, each with the index in `keys` of the key frame to start at."""
        start, keys = 0, self._index.keys
        for end, (before, after) in enumerate(pairwise(wanted), start=1):
            if keys[bisect_right(keys, after) - 1] - before > _WORTH_A_SEEK:
                yield bisect_right(keys, wanted[start]) - 1, wanted[start:end]
                start = end
        yield bisect_right(keys, wanted[start]) - 1, wanted[start:]

    def _decode(self, key: int, wanted: list[int], size: tuple[int, int]) -> dict[int, Tensor]:
        """Sorted frame numbers  ->  uint8 [H, W, 3] of each frame, as stored."""
        frames: dict[int, Tensor] = {}
        if self._seek(self._index.key_times[key]):
            frames = self._take(self._frames_by_time(self._index.keys[key]), wanted, size)
        if len(frames) < len(wanted):  # seeking failed; counting from the start does not
            self._restart()
            frames = self._take(enumerate(self._frames()), wanted, size)
        missing = next((index for index in wanted if index not in frames), None)
        if missing is not None:
            raise UnreadableError(f"frame {missing} of {self.info.frames} cannot be decoded")
        return frames

    def _take(
        self, numbered: Iterator[tuple[int, VideoFrame]], wanted: list[int], size: tuple[int, int]
    ) -> dict[int, Tensor]:
        frames: dict[int, Tensor] = {}
        remaining = set(wanted)
        for number, frame in numbered:
            if number in remaining:
                picture = self._reformatter.reformat(frame, size[1], size[0], "rgb24")
                frames[number] = torch.from_numpy(picture.to_ndarray())
                remaining.remove(number)
            if number >= wanted[-1]:
                break
        return frames

    def _seek(self, time: int) -> bool:
        """Seek to the key frame at this time; False if that is impossible."""
        if not self._index.numbers:
            return False
        try:
            self._container.seek(time, stream=self._stream)
        except av.FFmpegError:
            return False
        return True

    def _frames(self) -> Iterator[VideoFrame]:
        """Frames up to the end, or up to the first damage."""
        try:
            yield from self._container.decode(self._stream)
        except av.FFmpegError:  # the caller reports the missing frame
            return

    def _frames_by_time(self, key: int) -> Iterator[tuple[int, VideoFrame]]:
        """Numbered frames from frame `key` on, after seeking to it; none if seeking went past it."""
        arrived = False
        for frame in self._frames():
            number = None if frame.pts is None else self._index.numbers.get(frame.pts)
            if number is None:
                continue
            if not arrived and number > key:
                return
            arrived = True
            yield number, frame
