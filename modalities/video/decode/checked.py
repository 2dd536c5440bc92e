"""Checks that what is decoded from the middle of a file is what a decode of the whole file gives."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from av.video.frame import VideoFrame

from modalities.video.decode.frame_index import FrameIndex
from modalities.video.decode.packet_file import Decoded
from modalities.video.decode.stored import UnreadableError

_EARLIER = (0, 32, 256)  # frames by which decoding starts earlier where a key frame turns out to be none


class NoStartError(Exception):
    """Decoding from this place gives other frames than decoding the whole file."""


class Start(NamedTuple):
    """A packet at which decoding starts, and the frame that comes first."""

    packet: int
    frame: int


FILE_START = Start(0, 0)


def starts_before(index: FrameIndex, frame: int) -> Sequence[Start]:
    """Where decoding can start to reach a frame, nearest first; the last one is the start of the file."""
    if frame < index.keys[0]:
        raise UnreadableError(f"frame {frame} of {index.info.frames} comes before the first key frame")
    nearest = [bisect_right(index.keys, frame - earlier) - 1 for earlier in _EARLIER]
    starts = [Start(int(index.key_packets[key]), int(index.keys[key])) for key in nearest if key >= 0]
    return list(dict.fromkeys([*starts, FILE_START]))


def wanted_frames(
    index: FrameIndex, decoded: Iterable[Decoded], start: Start, wanted: Sequence[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """Numbered frames among those decoded from `start`, for sorted numbers.

    Raises NoStartError if decoding has to start earlier, UnreadableError if a wanted frame is damaged or missing.
    """
    remaining = list(wanted)
    progress = _Progress(index, start, wanted[0])
    for number, frame in progress.numbered(decoded):
        if number > remaining[0]:
            break
        if number == remaining[0]:
            if progress.is_damaged(number):
                raise UnreadableError(f"frame {number} of {index.info.frames} is damaged")
            yield remaining.pop(0), frame
            if not remaining:
                return
    if not progress.has_begun and not progress.damaged and start != FILE_START:
        raise NoStartError
    raise UnreadableError(f"frame {remaining[0]} of {index.info.frames} cannot be decoded")


class _Progress:
    """Numbers the frames of one decode and checks their order."""

    def __init__(self, index: FrameIndex, start: Start, first_wanted: int) -> None:
        self.index, self.start, self.first_wanted = index, start, first_wanted
        self.has_begun = False
        self.due = start.frame  # the number that comes next
        self.damaged: list[int] = []  # packets

    def numbered(self, decoded: Iterable[Decoded]) -> Iterator[tuple[int, VideoFrame]]:
        """Numbered frames; raises NoStartError if decoding has to start earlier."""
        for packet, frame in decoded:
            if frame is None or frame.is_corrupt:
                self._note_damage(packet, frame)
            number = None if frame is None else self._number(packet)
            if frame is None or number is None:
                continue
            if not self.has_begun:
                self._begin(number, frame)
            if number < self.due or not all(map(self.is_damaged, range(self.due, number))):
                raise NoStartError
            self.due = number + 1
            yield number, frame

    def is_damaged(self, number: int) -> bool:
        """Whether a frame, or one that it builds on since the last key frame, is in a damaged packet."""
        index = self.index
        if index.order is None:
            return bool(self.damaged) or bool(index.packets.is_damaged.any())
        first = index.key_packets[max(0, bisect_right(index.keys, number) - 1)]
        last = index.order[number]
        lost = bool(index.packets.is_damaged[first : last + 1].any())
        return lost or any(first <= packet <= last for packet in self.damaged)

    def _note_damage(self, packet: int | None, frame: VideoFrame | None) -> None:
        if frame is None and not self.has_begun and self.start != FILE_START:
            raise NoStartError
        self.damaged.append(-1 if packet is None else packet)

    def _number(self, packet: int | None) -> int | None:
        """The number of a frame, given its packet; None for frames that are not in the index or before the start."""
        if self.index.order is None:
            return self.due
        number = -1 if packet is None else int(self.index.ranks[packet])
        return number if number >= (0 if self.has_begun else self.start.frame) else None

    def _begin(self, number: int, frame: VideoFrame) -> None:
        """Check the first frame; decoders that skip frames which they cannot rebuild may begin later than asked."""
        self.has_begun = True
        if self.start == FILE_START:
            return
        key_is_shown = self.index.ranks[self.start.packet] >= 0
        if (self.index.states_keys and key_is_shown and not frame.key_frame) or number > self.first_wanted:
            raise NoStartError
        self.due = number
