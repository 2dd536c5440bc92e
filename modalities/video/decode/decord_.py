"""Decoding with decord."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import decord
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalities.video.decode.stored import UnreadableError, VideoInfo, reduced, reduced_size

decord.logging.set_level(decord.logging.FATAL)  # errors are reported once, by BadSampleError

_MEANINGS = {
    "Error reading": UnreadableError.NOT_A_VIDEO,
    "getting stream info": UnreadableError.NOT_A_VIDEO,
    "cannot find video stream": f"{UnreadableError.NO_STREAM} that decord can decode",
    "Failed to measure duration": "decord cannot count the frames of files of this kind",
    "avcodec_send_packet": UnreadableError.NO_FRAME,
    "recovered from": UnreadableError.NO_FRAME,
    "size must exactly match": "decord cannot read frames this narrow",
}
# By default, decord replaces a frame that it cannot decode by a copy of another one; this limit forbids that.
_MAX_REPEATED_SHARE = 1e-9
# Seeking is exact in MP4 and related formats, Matroska and AVI (see bytes 0 to 8 of the file), but not with H.265.
# In other files it is off by some frames, so frames are counted from the start.
_SEEKABLE = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"\x1a\x45\xdf\xa3", b"RIFF"}
_H265 = (b"hvc1", b"hev1", b"V_MPEGH")
_RATES = (0.01, 1000.0)  # plausible frames per second; packets without timestamps give nonsensical rates
_NARROW = 64  # width in pixels below which decord takes padding for a fourth channel
_INDEX_SIZE = 2**20  # bytes at each end of a file that are searched for the names of H.265


class DecordReader:
    """A video opened with decord; it decodes in one thread."""

    def __init__(self, source: Path | bytes) -> None:
        self._files = ExitStack()
        self._path = source if isinstance(source, Path) else self._files.enter_context(_written(source))
        try:
            self._open()
        except BaseException:
            self._files.close()
            raise

    def _open(self) -> None:
        self._is_seekable = _is_seekable(self._path)
        self._reader = self._start(-1, -1)
        height, width = self._next().shape[:2]  # the only way to learn the size
        self.info = VideoInfo(len(self._reader), self._rate(), height, width)

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        size = reduced_size(self.info.height, self.info.width, short_side)
        if size[1] < _NARROW:
            size = self.info.height, self.info.width
        wanted = sorted(set(indices))
        try:
            frames = self._seek(wanted, size) if self._is_seekable else self._count(wanted, size)
        except decord.DECORDLimitReachedError:  # a frame was replaced by a copy, possibly because of seeking
            frames = self._count(wanted, size)
        rows = {index: row for row, index in enumerate(wanted)}
        found = torch.from_numpy(frames)[[rows[index] for index in indices]].permute(0, 3, 1, 2)
        return reduced(found, short_side)

    def close(self) -> None:
        """Release files and memory; decord leaks memory with readers that stay open."""
        del self._reader
        self._files.close()

    def _start(self, height: int, width: int) -> decord.VideoReader:
        path = str(self._path)
        try:
            return decord.VideoReader(path, width=width, height=height, num_threads=1, fault_tol=_MAX_REPEATED_SHARE)
        except (decord.DECORDError, RuntimeError) as error:
            raise UnreadableError.explain(error, _MEANINGS) from error

    def _rate(self) -> float:
        """Frames per second from the times of the first and the last frame, otherwise from the header."""
        first, last = self._reader.get_frame_timestamp([0, len(self._reader) - 1])[:, 0].tolist()
        by_times = (len(self._reader) - 1) / (last - first) if last > first else 0.0
        rates = (rate for rate in (by_times, float(self._reader.get_avg_fps())) if _RATES[0] < rate < _RATES[1])
        return next(rates, 25.0)

    def _seek(self, wanted: list[int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Frames [T, H, W, 3], by seeking."""
        if size != (self.info.height, self.info.width):
            self._reader = self._start(*size)
        try:
            self._reader.get_batch([0])  # seeking before anything is decoded gives wrong frames
            frames: NDArray[np.uint8] = self._reader.get_batch(wanted).asnumpy()
        except decord.DECORDError as error:
            raise UnreadableError.explain(error, _MEANINGS) from error
        return frames

    def _count(self, wanted: list[int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Frames [T, H, W, 3], by decoding all frames from the start to the last one wanted."""
        self._reader = self._start(*size)
        numbers = set(wanted)
        frames = ((index, self._next()) for index in range(wanted[-1] + 1))
        return np.stack([frame for index, frame in frames if index in numbers])

    def _next(self) -> NDArray[np.uint8]:
        try:
            frame: NDArray[np.uint8] = self._reader.next().asnumpy()
        except (decord.DECORDError, decord.DECORDLimitReachedError, StopIteration) as error:
            raise UnreadableError.explain(error, {**_MEANINGS, "": UnreadableError.NO_FRAME}) from error
        return frame


def _is_seekable(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_INDEX_SIZE)
        file.seek(max(file.tell(), path.stat().st_size - _INDEX_SIZE))
        tail = file.read()
    return bool({head[:4], head[4:8]} & _SEEKABLE) and not any(name in head or name in tail for name in _H265)


@contextmanager
def _written(data: bytes) -> Iterator[Path]:
    """The path of a temporary file with these bytes; decord crashes on damaged videos in memory."""
    with NamedTemporaryFile(prefix="video-") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)
