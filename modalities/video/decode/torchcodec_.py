"""Decoding with torchcodec, which needs FFmpeg's shared libraries on the machine."""

from collections.abc import Sequence
from pathlib import Path

import torchcodec
from torch import Tensor
from torchcodec.decoders import VideoDecoder
from torchcodec.transforms import Resize

from modalities.video.decode.frame_index import FrameIndex
from modalities.video.decode.stored import UnreadableError, reduced_size

if torchcodec.ffmpeg_major_version is None:  # it can be imported without FFmpeg but opens nothing
    raise ImportError("torchcodec finds no shared libraries of FFmpeg that it can load")

_MEANINGS = {
    "Could not open input file": UnreadableError.NOT_A_VIDEO,
    "Failed to open input": UnreadableError.NOT_A_VIDEO,
    "Failed to find stream info": UnreadableError.NOT_A_VIDEO,
    "best video stream is unknown": UnreadableError.NO_STREAM,
    "No valid stream found": UnreadableError.NO_STREAM,
    "Could not push packet": UnreadableError.NO_FRAME,
    "no more frames left": UnreadableError.NO_FRAME,
    "Could not seek": "torchcodec cannot seek in files of this kind",
}
_MISCOUNTED = {"mpeg1video", "mpeg2video"}  # off by one frame, or failing, because these packets have no times


class TorchcodecReader:
    """A video opened with torchcodec; it decodes in one thread and reads all packets of the file for every clip."""

    def __init__(self, source: Path | bytes, index: FrameIndex) -> None:
        self.info = index.info
        self._source = source
        self._decoder = self._start(())
        header = self._decoder.metadata
        if header.codec in _MISCOUNTED:
            raise UnreadableError(f"torchcodec miscounts frames of {header.codec}")
        if (header.num_frames, header.height, header.width) != (self.info.frames, self.info.height, self.info.width):
            raise UnreadableError("torchcodec finds another number or size of frames than PyAV")

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        size = reduced_size(self.info.height, self.info.width, short_side)
        if size != (self.info.height, self.info.width):
            self._decoder = self._start([Resize(size)])
        try:
            self._decoder.get_frame_at(0)  # some files need frame 0 to decode later ones
            return self._decoder.get_frames_at(list(indices)).data
        except RuntimeError as error:
            raise UnreadableError.explain(error, _MEANINGS) from error

    def close(self) -> None:
        del self._decoder

    def _start(self, transforms: Sequence[Resize]) -> VideoDecoder:
        try:
            return VideoDecoder(self._source, num_ffmpeg_threads=1, seek_mode="exact", transforms=transforms)
        except (RuntimeError, ValueError) as error:
            raise UnreadableError.explain(error, _MEANINGS) from error
