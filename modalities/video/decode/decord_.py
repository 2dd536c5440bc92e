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

from modalities.video.decode.frame_index import FrameIndex
from modalities.video.decode.stored import UnreadableError, reduced, reduced_size

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
_NARROW = 64  # width in pixels below which decord takes padding for a fourth channel


class DecordReader:
    """A video opened with decord; it decodes in one thread.

    decord seeks wrongly where frames are stored after a key frame but displayed before it, where it takes other frames
    for key frames, and in H.265. There, frames are counted from the start.
    """

    def __init__(self, source: Path | bytes, index: FrameIndex) -> None:
        self.info = index.info
        self._keys = index.keys.tolist()
        self._is_seekable = index.has_closed_groups and index.codec != "hevc"
        self._files = ExitStack()
        self._path = source if isinstance(source, Path) else self._files.enter_context(_written(source))
        try:
            self._open()
        except BaseException:
            self._files.close()
            raise

    def _open(self) -> None:
        self._reader = self._start(-1, -1)
        found = (len(self._reader), *self._next().shape[:2])
        if found != (self.info.frames, self.info.height, self.info.width):
            raise UnreadableError("decord finds another number or size of frames than PyAV")
        if list(self._reader.get_key_indices()) != self._keys:
            self._is_seekable = False

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


@contextmanager
def _written(data: bytes) -> Iterator[Path]:
    """The path of a temporary file with these bytes; decord crashes on damaged videos in memory."""
    with NamedTemporaryFile(prefix="video-") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)
