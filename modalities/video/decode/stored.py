"""Stored videos: their facts, and random access to their frames."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import resize


class UnreadableError(Exception):
    """Raised by a video reader with a reason; the caller, who knows the file, turns it into a BadSampleError."""

    NOT_A_VIDEO = "not a video of a known format, or cut off before its index"
    NO_STREAM = "no video stream"
    NO_FRAME = "a frame cannot be decoded"

    @classmethod
    def explain(cls, error: Exception, meanings: Mapping[str, str]) -> Exception:
        """The meaning of a library's error, found by a part of its message; the error itself if it is unknown."""
        meaning = next((words for part, words in meanings.items() if part in str(error)), None)
        return cls(meaning) if meaning else error


@dataclass(frozen=True)
class VideoInfo:
    """Facts of a video: number of frames, mean frames per second, and upright height and width in pixels.

    seconds: time of each frame since the first, if the frame rate varies.
    """

    frames: int
    fps: float
    height: int
    width: int
    seconds: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)


class StoredVideo(Protocol):
    """A video with random access to its frames; picklable, without open files. Failures are BadSampleErrors.

    Implement `info` and `read`; `clip` chooses frames by the facts and reads them.
    """

    @property
    def info(self) -> VideoInfo:
        """The facts of the video."""
        ...

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames in the order of `indices`, which may repeat  ->  uint8 [len(indices), 3, H, W], RGB, upright.

        With `short_side`, larger frames are reduced until their shorter side has that many pixels, antialiased and with
        the same aspect; frames are never enlarged.
        """
        ...

    def clip(self, choose: Callable[[VideoInfo], Sequence[int]], short_side: int | None) -> Tensor:
        """The frames that `choose` selects, as in `read`; an encoded video is opened only once."""
        return self.read(choose(self.info), short_side)


def reduced_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Height and width after reducing the shorter side to at most `short_side` pixels at the same aspect."""
    shorter = min(height, width)
    if short_side is None or shorter <= short_side:
        return height, width
    longer = round(max(height, width) * short_side / shorter)
    return (short_side, longer) if height <= width else (longer, short_side)


def reduced(frames: Tensor, short_side: int | None) -> Tensor:
    """uint8 [T, 3, H, W]  ->  the same at `reduced_size`, antialiased."""
    height, width = frames.shape[-2:]
    size = reduced_size(height, width, short_side)
    small: Tensor = frames if size == (height, width) else resize(frames, list(size), antialias=True)
    return small


def check_indices(indices: Sequence[int], frames: int) -> None:
    """Raise IndexError (a mistake of the caller) unless every index is one of `frames` frames."""
    outside = [index for index in indices if not 0 <= index < frames]
    if outside:
        raise IndexError(f"no frame {outside[0]}: the video has frames 0 to {frames - 1}")


@dataclass(frozen=True, eq=False)
class ArrayVideo(StoredVideo):
    """Frames in memory, possibly memory-mapped: uint8 [T, H, W] grey, or [T, H, W, 3]; `fps`: frame rate."""

    frames: NDArray[np.uint8]
    fps: float

    @property
    def info(self) -> VideoInfo:
        """Facts from the shape."""
        count, height, width = self.frames.shape[:3]
        return VideoInfo(count, self.fps, height, width)

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        check_indices(indices, self.info.frames)
        selected = torch.from_numpy(np.array(self.frames[list(indices)]))  # [T, H, W, ...]
        if selected.ndim == 3:
            selected = selected.unsqueeze(-1).expand(-1, -1, -1, 3)
        return reduced(selected.permute(0, 3, 1, 2), short_side)
