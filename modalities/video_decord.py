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

from modalities.video_stored import NO_FRAME, NO_STREAM, NOT_A_VIDEO, VideoInfo, in_words, reduced_size

decord.logging.set_level(decord.logging.FATAL)  # what is wrong is said once, by us

_MEANINGS = {
    "Error reading": NOT_A_VIDEO,
    "getting stream info": NOT_A_VIDEO,
    "cannot find video stream": f"{NO_STREAM} that decord can decode",
    "Failed to measure duration": "decord cannot count the frames of files of this kind",
    "avcodec_send_packet": NO_FRAME,
    "recovered from": NO_FRAME,
}
# decord repeats a frame in place of one that it cannot decode, unless told how many may be: none, as with the others.
_MAX_REPEATED_SHARE = 1e-9
# Seeking finds the right frames in MP4 and its kin, Matroska and AVI, told by bytes 0 to 4 or 4 to 8; else it is
# off by some frames, and the frames are counted from the start.
_SEEKABLE = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"\x1a\x45\xdf\xa3", b"RIFF"}


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
        with self._path.open("rb") as file:
            head = file.read(8)
        self._is_seekable = bool({head[:4], head[4:]} & _SEEKABLE)
        self._reader = self._start(-1, -1)
        height, width = self._next().shape[:2]  # the only way to be told the size
        rate = float(self._reader.get_avg_fps())
        self.info = VideoInfo(len(self._reader), rate if np.isfinite(rate) and rate > 0 else 25.0, height, width)

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo."""
        size = reduced_size(self.info.height, self.info.width, short_side)
        wanted = sorted(set(indices))
        try:
            frames = self._sought(wanted, size) if self._is_seekable else self._counted(wanted, size)
        except decord.DECORDLimitReachedError:  # a frame was repeated, which seeking may be to blame for
            frames = self._counted(wanted, size)
        places = {index: place for place, index in enumerate(wanted)}
        return torch.from_numpy(frames)[[places[index] for index in indices]].permute(0, 3, 1, 2)

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


@contextmanager
def _written(data: bytes) -> Iterator[Path]:
    """The path of a file with these bytes: decord crashes on damaged ones that it reads from memory."""
    with NamedTemporaryFile(prefix="video-") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)
