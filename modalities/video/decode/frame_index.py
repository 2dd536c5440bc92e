"""Which packet of a video file holds each frame, and where decoding can start.

Frames are numbered in display order. Where the file states a time for every packet, the times give that order; packets
need not be decoded. Files whose times cannot give it are decoded once as a whole.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from modalities.video.decode.orientation import Orientation
from modalities.video.decode.stored import VideoInfo

Numbers = NDArray[np.integer[Any]]

NO_TIME = -(2**63)  # FFmpeg's value for a time that is not stated
_STORES_DISPLAY_TIMES = {"mov", "matroska", "flv", "nut", "mpegts", "mxf", "ivf"}  # others may store decoding times
_EXACT_SEEKS = {"mov", "matroska"}
_NOT_PARSED = {"hevc", "mpeg4"}  # codecs whose key frames FFmpeg takes from the container
_MOST_REORDERED = 16  # frames that H.264 and H.265 may hold back
_NOT_CODED_BYTES = 8  # an MPEG-4 packet of this size says that a frame is left out


class Packet(Protocol):
    """What is read of a packet; PyAV's packets have it."""

    pts: int | None
    dts: int | None
    pos: int | None
    size: int
    is_keyframe: bool
    is_discard: bool
    is_corrupt: bool


class Identity(NamedTuple):
    """Tells one packet of a file from the others: time, size and place in the file."""

    time: int
    size: int
    place: int


@dataclass(frozen=True, eq=False)
class Packets:
    """The packets of a video stream in stored order, without their contents."""

    times: Numbers  # when each is displayed, in the time base of the stream; NO_TIME if the file does not say
    decode_times: Numbers
    places: Numbers
    sizes: Numbers
    is_key: NDArray[np.bool_]
    is_shown: NDArray[np.bool_]  # not cut off by an edit list
    is_damaged: NDArray[np.bool_]  # parts were lost

    def __len__(self) -> int:
        return len(self.times)

    def find(self, packet: Packet) -> int | None:
        """The number of the only packet that has the identity of this one; None if there is not exactly one."""
        time, size, place = identity(packet)
        (found,) = np.nonzero((self.times == time) & (self.sizes == size) & (self.places == place))
        return int(found[0]) if len(found) == 1 else None

    def holds(self, number: int, packet: Packet) -> bool:
        """Whether packet `number` has the identity of this one."""
        found = (self.times[number], self.sizes[number], self.places[number]) if number < len(self) else None
        return found == identity(packet)


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """Frames of a video in display order, and what all of its clips need to know.

    order: packet of each frame; None if packets and frames do not correspond, so that frames must be counted.
    ranks: frame of each packet, -1 for none.
    keys, key_packets: frames at which decoding can start, and the packet to start at.
    doubt: why the times of the file cannot number the frames; empty if they do.
    """

    packets: Packets
    order: Numbers | None
    ranks: Numbers
    keys: Numbers
    key_packets: Numbers
    doubt: str
    info: VideoInfo
    orientation: Orientation
    states_keys: bool  # the decoder says which frames are key frames
    container: str  # FFmpeg's names of the format, separated by commas
    codec: str
    video_streams: int  # in the file, attached pictures among them

    @property
    def unusual(self) -> str:
        """Why decoders that are not checked may give wrong frames; empty if nothing is unusual."""
        all_are_key = len(self.packets) > 1 and bool(self.packets.is_key.all())
        formats = self.container.split(",")
        seeks_exactly = not _EXACT_SEEKS.isdisjoint(formats) or (formats == ["avi"] and not self.reorders)
        reasons = {
            self.doubt: bool(self.doubt),
            f"its format is {self.container}": not seeks_exactly,
            "it has several video streams": self.video_streams > 1,
            "it is mirrored": not self.orientation.turns_only,
            "it has cut frames": not self.packets.is_shown.all(),
            "it calls every frame a key frame": all_are_key and self.codec in _NOT_PARSED,
        }
        return next((reason for reason, applies in reasons.items() if applies), "")

    @property
    def reorders(self) -> bool:
        """Whether frames are stored in another order than they are displayed."""
        return self.order is None or bool((np.diff(self.order) < 0).any())

    @property
    def has_closed_groups(self) -> bool:
        """Whether no frame that is stored after a key frame is displayed before it."""
        following = np.minimum.accumulate(self.ranks[::-1])[::-1]
        return bool((following[self.key_packets] == self.ranks[self.key_packets]).all())

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        arrays = (self.order, self.ranks, self.keys, self.key_packets, self.info.seconds, *vars(self.packets).values())
        return sum(each.nbytes for each in arrays if each is not None)


def identity(packet: Packet) -> Identity:
    return Identity(_time(packet.pts), packet.size, _time(packet.pos))


def read_packets(packets: Iterable[Packet]) -> Packets:
    """Collect packets that have contents."""
    numbers = [array("q") for _ in range(4)]
    flags = [array("b") for _ in range(3)]
    for packet in packets:
        if packet.size:
            for column, value in zip(numbers, (packet.pts, packet.dts, packet.pos, packet.size), strict=True):
                column.append(NO_TIME if value is None else value)
            for flag, applies in zip(
                flags, (packet.is_keyframe, not packet.is_discard, packet.is_corrupt), strict=True
            ):
                flag.append(applies)
    times, decode_times, places, sizes = (np.array(column, dtype=np.int64) for column in numbers)
    is_key, is_shown, is_corrupt = (np.array(flag, dtype=np.bool_) for flag in flags)
    # Where streams were joined, FFmpeg calls the last or last but one packet of the first stream corrupt.
    ends = np.append(is_key, [True, True])
    is_damaged = is_corrupt & ~ends[1:-1] & ~ends[2:]
    return Packets(times, decode_times, places, sizes.astype(np.int32), is_key, is_shown, is_damaged)


def order_by_times(packets: Packets) -> Numbers:
    """Packets of the frames in display order, by their times."""
    (shown,) = np.nonzero(packets.is_shown)
    return shown[np.argsort(packets.times[shown], kind="stable")].astype(np.int32)


def doubt_about_times(packets: Packets, container: str, codec: str, reorders: bool) -> str:
    """Why the times of these packets may not tell which frame comes when; empty if nothing is unusual.

    reorders: the stream has frames that are displayed later than others that follow them.
    """
    shown = packets.times[packets.is_shown]
    decoded = packets.decode_times[packets.decode_times != NO_TIME]
    displaced = np.abs(np.argsort(np.argsort(shown)) - np.arange(len(shown))).max(initial=0)
    times_are_ascending = bool((np.diff(shown) > 0).all())
    stores_times = not _STORES_DISPLAY_TIMES.isdisjoint(container.split(","))
    not_coded = codec.startswith(("mpeg4", "msmpeg4", "h263")) and packets.sizes.min(initial=99) <= _NOT_CODED_BYTES
    reasons = {
        "some packets have no time": (shown == NO_TIME).any(),
        "several frames have the same time": len(np.unique(shown)) < len(shown),
        "its times restart": (np.diff(decoded) <= 0).any() or displaced > _MOST_REORDERED,
        "it does not start with a key frame": len(packets) > 0 and not packets.is_key[0],
        "frames before its first key frame are missing": (shown < packets.times[:1]).any(),
        "its times are those of decoding": reorders and times_are_ascending and not stores_times,
        "it has packets without a frame": not_coded,
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def timing(times: Numbers, time_base: Fraction | None, stated: float) -> tuple[float, NDArray[np.float64] | None]:
    """Times of the frames in display order -> frames per second, and the seconds of each frame if the rate varies.

    stated: the frame rate of the header, which counts if the times are unusable.
    """
    if len(times) < 2 or not time_base or NO_TIME in times or (np.diff(times) <= 0).any():
        return stated, None
    since = times - times[0]
    fps = float((len(times) - 1) / (int(since[-1]) * time_base))
    constant = np.arange(len(times)) * (since[-1] / (len(times) - 1))
    seconds = since * float(time_base)
    is_constant = np.abs(since - constant).max() * float(time_base) * fps < 0.5
    return fps, None if is_constant else seconds


def ranks_of(order: Numbers, packets: int) -> Numbers:
    """Packet of each frame  ->  frame of each packet, -1 for packets without a frame."""
    ranks = np.full(packets, -1, dtype=np.int32)
    ranks[order] = np.arange(len(order))
    return ranks


def starts(packets: Packets, ranks: Numbers) -> tuple[Numbers, Numbers]:
    """Frames at which decoding can start, in order, and the packets to start at; the first packet if none is a key.

    A key packet that is not shown itself starts the frames that follow it.
    """
    from_here = np.where(ranks < 0, len(ranks), ranks)
    next_shown = np.minimum.accumulate(from_here[::-1])[::-1]
    numbers = np.where(ranks < 0, next_shown, ranks)
    (keys,) = np.nonzero(packets.is_key & (numbers < len(ranks)))
    if not len(keys):
        return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    by_frame = keys[np.argsort(numbers[keys], kind="stable")]
    return numbers[by_frame], by_frame


def _time(value: int | None) -> int:
    return NO_TIME if value is None else value
