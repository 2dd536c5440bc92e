"""Small videos decoded whole, so that they can stay in memory from one epoch to the next."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from jepa.data.bad_files import name_of
from jepa.data.summary import SplitSummary, digest_of, summary_of
from jepa.modality import BadSampleError, Label, LabelledSamples, Sample
from modalities.video.decode.stored import StoredVideo, VideoInfo, check_indices, reduced, reduced_size
from modalities.video.decode.video import EncodedVideo

_SURVEY = 16  # videos from which the size of a set is estimated


class DecodedVideo(NamedTuple):
    """All frames of a video as a tensor, uint8 [T, 3, H, W], and its frame rate; a StoredVideo.

    It is a named tuple so that the core can find the tensor and count the memory of the sample.
    """

    frames: Tensor
    fps: float
    seconds: NDArray[np.float64] | None = None  # of each frame since the first, if the rate varies

    @property
    def info(self) -> VideoInfo:
        """Facts of the frames after any reduction."""
        count, _, height, width = self.frames.shape
        return VideoInfo(count, self.fps, height, width, self.seconds)

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        check_indices(indices, self.info.frames)
        return reduced(self.frames[list(indices)], short_side)

    def clip(self, choose: Callable[[VideoInfo], Sequence[int]], short_side: int | None) -> Tensor:
        return self.read(choose(self.info), short_side)


class DecodedIfSmall:
    """Samples whose videos are DecodedVideo if all frames, reduced to `short_side`, take at most `megabytes`."""

    def __init__(self, samples: LabelledSamples, short_side: int | None, megabytes: float) -> None:
        self.samples, self.short_side, self.megabytes = samples, short_side, megabytes
        self.large = np.zeros(len(samples), dtype=np.bool_)  # larger videos, which need not be checked again

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def summary(self) -> SplitSummary:
        """What the source found."""
        return summary_of(self.samples)

    def digest(self) -> str:
        """The digest of the source."""
        return digest_of(self.samples)

    def name_of(self, index: int) -> str:
        """The name of a sample in its source."""
        return name_of(self.samples, index)

    def labels_of(self, index: int) -> Mapping[str, Label]:
        """The labels of a sample, without reading it."""
        return self.samples.labels_of(index)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        video: StoredVideo = sample.inputs
        if self.large[index]:
            return sample
        choose = _AllIfSmall(self.short_side, self.megabytes * 2**20)
        frames = video.clip(choose, self.short_side)
        if not len(frames):
            self.large[index] = True
            return sample
        return Sample(DecodedVideo(frames, choose.fps, choose.seconds), sample.labels)

    def read_once(self, index: int) -> Sample:
        """The sample as it is stored: a clip of it costs less than all of its frames."""
        return self.samples[index]

    def expected_bytes(self, limit: float) -> float:
        """Bytes of all videos that would be decoded whole, judged by some that are evenly spread over the set."""
        count, largest = len(self.samples), self.megabytes * 2**20
        if count * largest <= limit:
            return count * largest
        sizes = [self._whole_bytes(index) for index in range(0, count, max(1, count // _SURVEY))]
        return count * sum(sizes) / len(sizes)

    def _whole_bytes(self, index: int) -> int:
        """Bytes of a video if it would be decoded whole, otherwise 0."""
        with suppress(BadSampleError):
            video: StoredVideo = self.samples[index].inputs
            if isinstance(video, EncodedVideo) and video.stored_bytes > self.megabytes * 2**20:
                return 0  # decoded it is larger; indexing a long file would take a second
            choose = _AllIfSmall(self.short_side, self.megabytes * 2**20)
            info = video.info
            return len(choose(info)) * 3 * math.prod(reduced_size(info.height, info.width, self.short_side))
        return 0


class _AllIfSmall:
    """Selects all frames of a video, or none if they take too many bytes; then `fps` and `seconds` are set."""

    def __init__(self, short_side: int | None, limit: float) -> None:
        self.short_side, self.limit = short_side, limit
        self.fps = 0.0
        self.seconds: NDArray[np.float64] | None = None

    def __call__(self, info: VideoInfo) -> range:
        self.fps, self.seconds = info.fps, info.seconds
        height, width = reduced_size(info.height, info.width, self.short_side)
        return range(info.frames if info.frames * 3 * height * width <= self.limit else 0)
