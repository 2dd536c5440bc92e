"""Frames by decord."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import decord
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalities.video.stored import NO_FRAME, NO_STREAM, NOT_A_VIDEO, VideoInfo, in_words, reduced, reduced_size

decord.logging.set_level(decord.logging.FATAL)  # what is wrong is said once, by us

_MEANINGS = {
    "Error reading": NOT_A_VIDEO,
    "getting stream info": NOT_A_VIDEO,
    "cannot find video stream": f"{NO_STREAM} that decord can decode",
    "Failed to measure duration": "decord cannot count the frames of files of this kind",
    "avcodec_send_packet": NO_FRAME,
    "recovered from": NO_FRAME,
    "size must exactly match": "decord does not read frames as narrow as these",
}
# decord repeats a frame in place of one that it cannot decode, unless told how many may be: none, as with the others.
_MAX_REPEATED_SHARE = 1e-9
# Seeking finds the right frames in MP4 and its kin, Matroska and AVI, told by bytes 0 to 4 or 4 to 8, unless they hold
# H.265; elsewhere it is off by some frames, and frames are counted from the start.
_SEEKABLE = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"\x1a\x45\xdf\xa3", b"RIFF"}
_H265 = (b"hvc1", b"hev1", b"V_MPEGH")
_RATES = (0.01, 1000.0)  # frames a second: packets without times are told to come at nonsensical ones
_NARROW = 64  # pixels of width below which decord takes padding for a fourth colour
_INDEX_SIZE = 2**20  # bytes at either end of a file among which these names stand


class DecordReader:
    """A video opened by decord, one thread of decoding."""

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
        height, width = self._next().shape[:2]  # the only way to be told the size
        self.info = VideoInfo(len(self._reader), self._rate(), height, width)

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo."""
        size = reduced_size(self.info.height, self.info.width, short_side)
        if size[1] < _NARROW:
            size = self.info.height, self.info.width
        wanted = sorted(set(indices))
        try:
            frames = self._sought(wanted, size) if self._is_seekable else self._counted(wanted, size)
        except decord.DECORDLimitReachedError:  # a frame was repeated, which seeking may be to blame for
            frames = self._counted(wanted, size)
        places = {index: place for place, index in enumerate(wanted)}
        found = torch.from_numpy(frames)[[places[index] for index in indices]].permute(0, 3, 1, 2)
        return reduced(found, short_side)

    def close(self) -> None:
        """Give back files and memory: decord leaks with readers that are kept."""
        del self._reader
        self._files.close()

    def _start(self, height: int, width: int) -> decord.VideoReader:
        path = str(self._path)
        try:
            return decord.VideoReader(path, width=width, height=height, num_threads=1, fault_tol=_MAX_REPEATED_SHARE)
        except (decord.DECORDError, RuntimeError) as error:
            raise in_words(error, _MEANINGS) from error

    def _rate(self) -> float:
        """Frames a second by the times of the first and the last, or else as the file tells them."""
        first, last = self._reader.get_frame_timestamp([0, len(self._reader) - 1])[:, 0].tolist()
        by_times = (len(self._reader) - 1) / (last - first) if last > first else 0.0
        rates = (rate for rate in (by_times, float(self._reader.get_avg_fps())) if _RATES[0] < rate < _RATES[1])
        return next(rates, 25.0)

    def _sought(self, wanted: list[int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Frames [T, H, W, 3], found by seeking."""
        if size != (self.info.height, self.info.width):
            self._reader = self._start(*size)
        try:
            self._reader.get_batch([0])  # a reader that seeks before it has decoded anything gives wrong pictures
            frames: NDArray[np.uint8] = self._reader.get_batch(wanted).asnumpy()
        except decord.DECORDError as error:
            raise in_words(error, _MEANINGS) from error
        return frames

    def _counted(self, wanted: list[int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Frames [T, H, W, 3], by taking all up to the last of them from the start."""
        self._reader = self._start(*size)
        chosen = set(wanted)
        frames = ((index, self._next()) for index in range(wanted[-1] + 1))
        return np.stack([frame for index, frame in frames if index in chosen])

    def _next(self) -> NDArray[np.uint8]:
        try:
            frame: NDArray[np.uint8] = self._reader.next().asnumpy()
        except (decord.DECORDError, decord.DECORDLimitReachedError, StopIteration) as error:
            raise in_words(error, {**_MEANINGS, "": NO_FRAME}) from error
        return frame


def _is_seekable(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_INDEX_SIZE)
        file.seek(max(file.tell(), path.stat().st_size - _INDEX_SIZE))
        tail = file.read()
    return bool({head[:4], head[4:8]} & _SEEKABLE) and not any(name in head or name in tail for name in _H265)


@contextmanager
def _written(data: bytes) -> Iterator[Path]:
    """The path of a file with these bytes: decord crashes on damaged ones that it reads from memory."""
    with NamedTemporaryFile(prefix="video-") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)
