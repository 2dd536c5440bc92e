"""A video file open for reading packets and decoding them with PyAV.

Packets get their number in the file as their time before they are decoded. A decoder passes times on to its frames, so
that every frame names its packet, whatever times the file states.
"""

from collections.abc import Iterator
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from modalities.video.decode.frame_index import NO_TIME, Packets
from modalities.video.decode.stored import UnreadableError

_NEAR = 100  # packets after a seek among which a known one is looked for


class LostError(Exception):
    """Seeking led to packets that are not those read before."""


class Decoded(NamedTuple):
    """A frame and its packet, None if the decoder does not say; or, without a frame, a packet that is damaged."""

    packet: int | None
    frame: VideoFrame | None


class PacketFile:
    """The best video stream of a file; decodes in one thread."""

    def __init__(self, source: Path | bytes) -> None:
        self._source = source
        self._container, self.stream = self._start()
        self._is_fresh = True  # no packet has been read yet

    def close(self) -> None:
        self._container.close()

    @property
    def container(self) -> str:
        """FFmpeg's names of the format, separated by commas."""
        return self._container.format.name

    @property
    def video_streams(self) -> int:
        """Number of video streams, attached pictures among them."""
        return len(self._container.streams.video)

    def packets(self) -> Iterator["Packet[VideoStream]"]:
        """All packets with contents, from the start."""
        if not self._is_fresh:
            self._container.close()
            self._container, self.stream = self._start()
        self._is_fresh = False
        return self._demuxed()

    def decoded(self, first: int = 0, known: Packets | None = None) -> Iterator[Decoded]:
        """Frames decoded from packet `first` on, which is found by counting from the start of the file.

        With `known`, the packets of the file, it is found by seeking; raises LostError if that fails.
        """
        numbered = islice(enumerate(self.packets()), first, None) if known is None else self._sought(first, known)
        context = self.stream.codec_context
        for number, packet in numbered:
            packet.pts = packet.dts = number
            try:
                frames = context.decode(packet)
            except av.FFmpegError:
                yield Decoded(number, None)
                continue
            yield from (Decoded(frame.pts, frame) for frame in frames)
        try:
            yield from (Decoded(frame.pts, frame) for frame in context.decode(None))
        except av.FFmpegError:  # the caller reports the frames that are missing now
            return

    def _start(self) -> tuple[InputContainer, VideoStream]:
        try:
            container = av.open(str(self._source) if isinstance(self._source, Path) else BytesIO(self._source), "r")
        except av.FFmpegError as error:
            raise UnreadableError(UnreadableError.NOT_A_VIDEO) from error
        try:
            stream = _moving_stream(container)
            _check_decodable(stream)
            stream.codec_context.thread_count = 1  # loaders have a worker per core
        except BaseException:
            container.close()
            raise
        return container, stream

    def _demuxed(self) -> Iterator["Packet[VideoStream]"]:
        try:
            yield from (packet for packet in self._container.demux(self.stream) if packet.size)
        except av.FFmpegError:  # the file is cut off here
            return

    def _sought(self, first: int, known: Packets) -> Iterator[tuple[int, "Packet[VideoStream]"]]:
        """Numbered packets from `first` on; each is compared with what is known of it."""
        target = next((int(times[first]) for times in (known.decode_times, known.times) if times[first] != NO_TIME), 0)
        self._is_fresh = False
        try:
            self._container.seek(target, stream=self.stream)
        except av.FFmpegError as error:
            raise LostError from error
        packets = self._demuxed()
        arrived, known_one = _first_known(packets, known)
        if arrived > first:
            raise LostError
        for number, packet in enumerate(chain([known_one], packets), start=arrived):
            if not known.holds(number, packet):
                raise LostError
            if number >= first:
                yield number, packet


def _first_known(packets: Iterator["Packet[VideoStream]"], known: Packets) -> tuple[int, "Packet[VideoStream]"]:
    """The number of the first packet that is known, and the packet; a seek may end between two packets."""
    for packet in islice(packets, _NEAR):
        if (number := known.find(packet)) is not None:
            return number, packet
    raise LostError


def _moving_stream(container: InputContainer) -> VideoStream:
    """The best video stream that is not a picture attached to sound, such as the cover of an album."""
    best = container.streams.best("video")
    candidates = [stream for stream in (best, *container.streams.video) if isinstance(stream, VideoStream)]
    moving = next((stream for stream in candidates if not _is_attached(stream)), None)
    if moving is None and candidates:
        raise UnreadableError("no video stream: its only picture is attached to sound, such as the cover of an album")
    if moving is None:
        raise UnreadableError(UnreadableError.NO_STREAM)
    return moving


def _is_attached(stream: VideoStream) -> bool:
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _check_decodable(stream: VideoStream) -> None:
    if cast(Any, stream).codec_context is None:
        raise UnreadableError("its video has an unknown codec, or one that FFmpeg cannot decode")
