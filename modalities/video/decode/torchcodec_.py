"""Frames by torchcodec, which needs FFmpeg's shared libraries on the machine."""

from collections.abc import Sequence
from pathlib import Path

import torchcodec
from torch import Tensor
from torchcodec.decoders import VideoDecoder
from torchcodec.transforms import Resize

from modalities.video.stored import NO_FRAME, NO_STREAM, NOT_A_VIDEO, UnreadableError, VideoInfo, in_words, reduced_size

if torchcodec.ffmpeg_major_version is None:  # then it can be imported but opens nothing
    raise ImportError("torchcodec finds no shared libraries of FFmpeg that it can load")

_MEANINGS = {
    "Could not open input file": NOT_A_VIDEO,
    "Failed to open input": NOT_A_VIDEO,
    "Failed to find stream info": NOT_A_VIDEO,
    "best video stream is unknown": NO_STREAM,
    "No valid stream found": NO_STREAM,
    "Could not push packet": NO_FRAME,
    "no more frames left": NO_FRAME,
    "Could not seek": "torchcodec cannot seek in files of this kind",
}
_MISCOUNTED = {"mpeg1video", "mpeg2video"}  # frames come one too late, or not at all, as these packets have no times


class TorchcodecReader:
    """A video opened by torchcodec, one thread; frames are counted by reading through the packets."""

    def __init__(self, source: Path | bytes) -> None:
        self._source = source
        self._decoder = self._start(())
        facts = self._decoder.metadata
        if not facts.num_frames or not facts.height or not facts.width:
            raise UnreadableError("no frames")
        if facts.codec in _MISCOUNTED:
            raise UnreadableError(f"torchcodec does not count frames of {facts.codec} right")
        self.info = VideoInfo(facts.num_frames, float(facts.average_fps or 25), facts.height, facts.width)

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo."""
        size = reduced_size(self.info.height, self.info.width, short_side)
        if size != (self.info.height, self.info.width):
            self._decoder = self._start([Resize(size)])
        try:
            self._decoder.get_frame_at(0)  # some files have in this frame what decoding from a later one needs
            return self._decoder.get_frames_at(list(indices)).data
        except RuntimeError as error:
            raise in_words(error, _MEANINGS) from error

    def close(self) -> None:
        """Give back files and memory."""
        del self._decoder

    def _start(self, transforms: Sequence[Resize]) -> VideoDecoder:
        try:
            return VideoDecoder(self._source, num_ffmpeg_threads=1, seek_mode="exact", transforms=transforms)
        except (RuntimeError, ValueError) as error:
            raise in_words(error, _MEANINGS) from error
