"""Decoding with PyAV, which bundles FFmpeg's libraries and reads the most kinds of files."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from torch import Tensor

from modalities.video.decode.checked import NoStartError, starts_before, wanted_frames
from modalities.video.decode.frame_index import (
    FrameIndex,
    Numbers,
    Packets,
    doubt_about_times,
    order_by_times,
    ranks_of,
    read_packets,
    starts,
    timing,
)
from modalities.video.decode.orientation import orientation_of
from modalities.video.decode.packet_file import Decoded, LostError, PacketFile
from modalities.video.decode.stored import UnreadableError, VideoInfo, reduced_size

_WORTH_A_SEEK = 12  # distance to the next key frame, in frames, from which on seeking is cheaper than decoding
_SAME_SHAPE = 0.02  # relative difference of aspect ratios that comes from rounding


class PyavReader:
    """A video opened with PyAV; it decodes in one thread.

    Frames are known by their packets (see packet_file). A clip is decoded from the key frame before it and checked: the
    packets are those of the index, the decoder calls the first frame a key frame, and the frames come in the order of
    the index without gaps. Otherwise decoding starts earlier, at last with the first packet of the file.
    """

    def __init__(self, source: Path | bytes, index: FrameIndex | None = None) -> None:
        self._reformatter = VideoReformatter()
        self._file = PacketFile(source)
        try:
            self.index = index or self._scanned()
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> VideoInfo:
        """Facts of the video."""
        return self.index.info

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        height, width = reduced_size(self.info.height, self.info.width, short_side)
        size = self.index.orientation.size(height, width)
        frames: dict[int, Tensor] = {}
        for wanted in self._runs(sorted(set(indices))):
            frames |= self._decoded(wanted, size)
        together = torch.stack([frames[index] for index in indices])  # [T, H, W, 3]
        return self.index.orientation.upright(together).permute(0, 3, 1, 2)

    def rest(self) -> None:
        """Release decoded frames, and threads, which a forked process would wait for; the reader stays usable."""
        self._file.stream.codec_context.flush_buffers()
        self._reformatter = VideoReformatter()

    def close(self) -> None:
        self._file.close()

    def _scanned(self) -> FrameIndex:
        """The index from all packets, which are decoded only if their times cannot number the frames."""
        packets = read_packets(self._file.packets())
        stream = self._file.stream
        reorders = bool(stream.codec_context.has_b_frames)
        doubt = doubt_about_times(packets, self._file.container, stream.codec_context.name, reorders)
        if doubt:
            return self._index_by_decoding(packets, doubt)
        try:
            first = _first_frame(self._file.decoded(0, packets))
        except LostError:
            first = _first_frame(self._file.decoded())
        return self._index(packets, order_by_times(packets), first, doubt)

    def _index_by_decoding(self, packets: Packets, doubt: str) -> FrameIndex:
        frames = (found for found in self._file.decoded() if found.frame)
        first = next(frames, None)
        if first is None:
            raise UnreadableError("no frame can be decoded")
        numbers = [first.packet, *(found.packet for found in frames)]
        stated = [number for number in numbers if number is not None]
        known = np.array(stated, dtype=np.int32) if len(set(stated)) == len(numbers) else None
        return self._index(packets, known, first.frame, doubt, len(numbers))

    def _index(
        self, packets: Packets, order: Numbers | None, first: VideoFrame | None, doubt: str, count: int | None = None
    ) -> FrameIndex:
        if first is None:
            raise UnreadableError("no frame can be decoded")
        stream = self._file.stream
        orientation = orientation_of(_display_matrix(first))
        height, width = orientation.size(first.height, first.width)
        stated = float(stream.average_rate or stream.guessed_rate or 25)
        times = packets.times[:0] if order is None else packets.times[order]
        fps, seconds = timing(times, stream.time_base, stated)
        ranks = ranks_of(packets.times[:0] if order is None else order, len(packets))
        keys, key_packets = starts(packets, ranks)
        info = VideoInfo(len(times) if count is None else count, fps, height, width, seconds)
        return FrameIndex(
            packets=packets,
            order=order,
            ranks=ranks,
            keys=keys,
            key_packets=key_packets,
            doubt=doubt,
            info=info,
            orientation=orientation,
            states_keys=bool(first.key_frame),
            container=self._file.container,
            codec=stream.codec_context.name,
            video_streams=self._file.video_streams,
        )

    def _runs(self, wanted: list[int]) -> Iterator[list[int]]:
        """Groups of frames to decode in one pass."""
        start, keys = 0, self.index.keys
        for end, (before, after) in enumerate(pairwise(wanted), start=1):
            if keys[max(0, bisect_right(keys, after) - 1)] - before > _WORTH_A_SEEK:
                yield wanted[start:end]
                start = end
        yield wanted[start:]

    def _decoded(self, wanted: list[int], size: tuple[int, int]) -> dict[int, Tensor]:
        """Sorted frame numbers  ->  uint8 [H, W, 3] of each frame, as stored."""
        for start in starts_before(self.index, wanted[0]):
            for known in (self.index.packets, None):  # by seeking, or else by counting packets
                decoded = self._file.decoded(start.packet, known)
                try:
                    found = wanted_frames(self.index, decoded, start, wanted)
                    return {number: self._picture(frame, size) for number, frame in found}
                except LostError:
                    continue
                except NoStartError:
                    break
        return self._decoded_by_another_index(wanted, size)

    def _decoded_by_another_index(self, wanted: list[int], size: tuple[int, int]) -> dict[int, Tensor]:
        """As `_decoded`, where times turned out not to tell the order of the frames."""
        reason = "its frames do not come in the order of their times"
        if self.index.doubt:
            raise UnreadableError(f"frame {wanted[0]} cannot be decoded: {self.index.doubt}")
        other = self._index_by_decoding(self.index.packets, reason)
        if other.info.frames != self.index.info.frames:
            raise UnreadableError(f"{reason}: {self.index.info.frames} packets give {other.info.frames} frames")
        self.index = other
        return self._decoded(wanted, size)

    def _picture(self, frame: VideoFrame, size: tuple[int, int]) -> Tensor:
        self._check_shape(frame)
        return torch.from_numpy(self._reformatter.reformat(frame, size[1], size[0], "rgb24").to_ndarray())

    def _check_shape(self, frame: VideoFrame) -> None:
        """Raise UnreadableError for a frame that would be distorted; other sizes of the same shape are scaled."""
        height, width = self.index.orientation.size(self.info.height, self.info.width)
        if abs(frame.width * height / (frame.height * width) - 1) > _SAME_SHAPE:
            sizes = f"{width} x {height} to {frame.width} x {frame.height} pixels"
            raise UnreadableError(f"its frames change their shape, from {sizes}")


def _first_frame(decoded: Iterator[Decoded]) -> VideoFrame | None:
    return next((found.frame for found in decoded if found.frame), None)


def _display_matrix(frame: VideoFrame) -> bytes | None:
    matrix = cast(Any, frame.side_data.get("DISPLAYMATRIX"))
    return None if matrix is None else bytes(matrix)
