"""What a stored video is: its facts, and the frames that are asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import resize

NOT_A_VIDEO = "not a video of a known format, or cut off before its index"
NO_STREAM = "no video stream"
NO_FRAME = "a frame of it cannot be decoded"


class UnreadableError(Exception):
    """Raised by a reader of videos, with the reason in words; who knows the name of the file makes it a bad sample."""


def in_words(error: Exception, meanings: Mapping[str, str]) -> Exception:
    """A library's error  ->  what it means, by a part of its message; itself where none of these is known."""
    said = next((words for part, words in meanings.items() if part in str(error)), None)
    return UnreadableError(said) if said else error


@dataclass(frozen=True)
class VideoInfo:
    """Facts of a video: number of frames, frames a second (mean), and upright height and width in pixels."""

    frames: int
    fps: float
    height: int
    width: int


class StoredVideo(Protocol):
    """A video with random access to its frames; what cannot be read is a BadSampleError. Pickles, holds nothing open.

    Implement `info` and `read`; `clip` reads frames that are chosen by the facts.
    """

    @property
    def info(self) -> VideoInfo:
        """The facts of the video."""
        ...

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames in the order of `indices`, any of them repeated  ->  uint8 [len(indices), 3, H, W], RGB, upright.

        With `short_side`, frames whose shorter side is longer are reduced to that many pixels there, antialiased, the
        aspect kept; they are never enlarged.
        """
        ...

    def clip(self, choose: Callable[[VideoInfo], Sequence[int]], short_side: int | None) -> Tensor:
        """The frames that `choose` takes for these facts, as `read`; an encoded video is opened once for both."""
        return self.read(choose(self.info), short_side)


def reduced_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Height and width of frames whose shorter side is reduced to at most `short_side` pixels, the aspect kept."""
    shorter = min(height, width)
    if short_side is None or shorter <= short_side:
        return height, width
    longer = round(max(height, width) * short_side / shorter)
    return (short_side, longer) if height <= width else (longer, short_side)


def reduced(frames: Tensor, short_side: int | None) -> Tensor:
    """uint8 [T, 3, H, W]  ->  the same, or antialiased at `reduced_size`."""
    height, width = frames.shape[-2:]
    size = reduced_size(height, width, short_side)
    small: Tensor = frames if size == (height, width) else resize(frames, list(size), antialias=True)
    return small


def check_indices(indices: Sequence[int], frames: int) -> None:
    """Raise IndexError, a mistake of the caller, unless every index is one of `frames` frames."""
    outside = [index for index in indices if not 0 <= index < frames]
    if outside:
        raise IndexError(f"frame {outside[0]} is asked for; the video has frames 0 to {frames - 1}")


@dataclass(frozen=True, eq=False)
class ArrayVideo(StoredVideo):
    """Frames in memory, or mapped into it: uint8 [T, H, W], grey, or [T, H, W, 3]; `fps` as it is known."""

    frames: NDArray[np.uint8]
    fps: float

    @property
    def info(self) -> VideoInfo:
        """Read off the shape."""
        count, height, width = self.frames.shape[:3]
        return VideoInfo(count, self.fps, height, width)

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo."""
        check_indices(indices, self.info.frames)
        chosen = torch.from_numpy(np.array(self.frames[list(indices)]))  # [T, H, W, ...]
        if chosen.ndim == 3:
            chosen = chosen.unsqueeze(-1).expand(-1, -1, -1, 3)
        return reduced(chosen.permute(0, 3, 1, 2), short_side)
