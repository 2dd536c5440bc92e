"""Frames by decord."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import decord
import numpy as np
import torch
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


class DecordReader:
    """A video opened by decord, one thread of decoding."""

    def __init__(self, source: Path | bytes) -> None:
        self._source = source
        self._reader = self._start(-1, -1)
        height, width = self._frames([0]).shape[2:]  # it tells the size by a frame only
        rate = float(self._reader.get_avg_fps())
        self.info = VideoInfo(len(self._reader), rate if np.isfinite(rate) and rate > 0 else 25.0, height, width)

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo."""
        height, width = reduced_size(self.info.height, self.info.width, short_side)
        if (height, width) != (self.info.height, self.info.width):
            self._reader = self._start(height, width)
        return self._frames(indices)

    def close(self) -> None:
        """Give back files and memory: decord leaks with readers that are kept."""
        del self._reader

    def _frames(self, indices: Sequence[int]) -> Tensor:
        try:
            frames = self._reader.get_batch(list(indices)).asnumpy()  # [T, H, W, 3]
        except (decord.DECORDError, decord.DECORDLimitReachedError) as error:
            raise in_words(error, _MEANINGS) from error
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    def _start(self, height: int, width: int) -> decord.VideoReader:
        stream = str(self._source) if isinstance(self._source, Path) else BytesIO(self._source)
        try:
            return decord.VideoReader(stream, width=width, height=height, num_threads=1, fault_tol=_MAX_REPEATED_SHARE)
        except (decord.DECORDError, RuntimeError) as error:
            raise in_words(error, _MEANINGS) from error
