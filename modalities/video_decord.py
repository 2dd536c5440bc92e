"""Frames by decord."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

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
        self._source = source
        self._reader = self._start(-1, -1)
        self._is_seekable = bool({(head := _head(source))[:4], head[4:8]} & _SEEKABLE)
        height, width = self._next().shape[:2]  # the only way to be told the size
        rate = float(self._reader.get_avg_fps())
        self.info = VideoInfo(len(self._reader), rate if np.isfinite(rate) and rate > 0 else 25.0, height, width)

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo."""
        height, width = reduced_size(self.info.height, self.info.width, short_side)
        if not self._is_seekable or (height, width) != (self.info.height, self.info.width):
            self._reader = self._start(height, width)
        wanted = sorted(set(indices))
        frames = self._batch(wanted) if self._is_seekable else self._counted(wanted)
        places = {index: place for place, index in enumerate(wanted)}
        return torch.from_numpy(frames)[[places[index] for index in indices]].permute(0, 3, 1, 2)

    def close(self) -> None:
        """Give back files and memory: decord leaks with readers that are kept."""
        del self._reader

    def _start(self, height: int, width: int) -> decord.VideoReader:
        stream = str(self._source) if isinstance(self._source, Path) else BytesIO(self._source)
        try:
            return decord.VideoReader(stream, width=width, height=height, num_threads=1, fault_tol=_MAX_REPEATED_SHARE)
        except (decord.DECORDError, RuntimeError) as error:
            raise in_words(error, _MEANINGS) from error

    def _batch(self, wanted: list[int]) -> NDArray[np.uint8]:
        """Frames [T, H, W, 3], found by seeking."""
        try:
            self._reader.get_batch([0])  # a reader that seeks before it has decoded anything gives wrong pictures
            frames: NDArray[np.uint8] = self._reader.get_batch(wanted).asnumpy()
        except (decord.DECORDError, decord.DECORDLimitReachedError) as error:
            raise in_words(error, _MEANINGS) from error
        return frames

    def _counted(self, wanted: list[int]) -> NDArray[np.uint8]:
        """Frames [T, H, W, 3] of a fresh reader, without seeking."""
        frames, position = [], 0
        for index in wanted:
            if index > position:
                self._reader.skip_frames(index - position)
            frames.append(self._next())
            position = index + 1
        return np.stack(frames)

    def _next(self) -> NDArray[np.uint8]:
        try:
            frame: NDArray[np.uint8] = self._reader.next().asnumpy()
        except (decord.DECORDError, decord.DECORDLimitReachedError, StopIteration) as error:
            raise in_words(error, {**_MEANINGS, "": NO_FRAME}) from error
        return frame


def _head(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:8]
    with source.open("rb") as file:
        return file.read(8)
