"""Selects the frames of a clip from a video, and crops a clip: all frames with the same box.

Frames of a clip are evenly spaced: in time if `fps` is set, otherwise by number. A video that is too short for the
spacing gives a denser clip over its whole length, with repeated frames if necessary; a clip that freezes at its end
would be too easy to predict. An image is a video of one frame and gives a still clip.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from modalities.image.views import center_view, largest_box, random_resized_crop, resized_crop
from modalities.video.decode.stored import VideoInfo

Times = NDArray[np.float64]


def frame_spacing(info: VideoInfo, fps: float | None, step: int) -> float:
    """Distance between frames of a clip, in frames of the video: from `fps` if given, otherwise `step`.

    It is computed from the mean frame rate of the video; a higher `fps` than that repeats frames.
    """
    return float(step) if fps is None else info.fps / fps


def random_frames(info: VideoInfo, frames: int, spacing: float, generator: Generator) -> list[int]:
    """Frame indices of a random clip; every start is equally likely, up to the last that fits.

    If the video states the seconds of its frames, the frames nearest to evenly spaced times are taken.
    """
    if info.seconds is not None and info.frames > 1:
        offsets, latest = _second_offsets(info.seconds, frames, spacing / info.fps)
        return nearest(info.seconds, float(torch.rand((), generator=generator)) * latest + offsets)
    steps = _offsets(info, frames, spacing)
    start = int(torch.randint(info.frames - steps[-1], (), generator=generator))
    return [start + step for step in steps]


def even_frames(info: VideoInfo, frames: int, spacing: float, clip: int = 0, clips: int = 1) -> list[int]:
    """Frame indices of clip number `clip` of `clips` evenly spaced clips, otherwise as in `random_frames`.

    The first clip starts with the video and the last ends with it; a single clip is in the middle.
    """
    if info.seconds is not None and info.frames > 1:
        offsets, latest = _second_offsets(info.seconds, frames, spacing / info.fps)
        return nearest(info.seconds, latest * (1 / 2 if clips == 1 else clip / (clips - 1)) + offsets)
    steps = _offsets(info, frames, spacing)
    last = info.frames - 1 - steps[-1]
    start = last // 2 if clips == 1 else round(last * clip / (clips - 1))
    return [start + step for step in steps]


def _offsets(info: VideoInfo, frames: int, spacing: float) -> list[int]:
    """Offsets of the frames of a clip from its first frame, rounded, within the length of the video."""
    fitting = min(spacing, (info.frames - 1) / max(1, frames - 1))
    return [int(fitting * number + 0.5) for number in range(frames)]


def _second_offsets(times: Times, frames: int, period: float) -> tuple[Times, float]:
    """Seconds of the frames of a clip since its start, within the length of the video, and the latest start."""
    length = float(times[-1])
    offsets: Times = np.arange(frames) * np.float64(min(period, length / max(1, frames - 1)))
    return offsets, max(0.0, length - float(offsets[-1]))


def nearest(times: Times, wanted: Times) -> list[int]:
    """The frame nearest to each wanted time."""
    after = np.searchsorted(times, wanted).clip(1, len(times) - 1)
    is_before = wanted - times[after - 1] <= times[after] - wanted
    nearest: list[int] = np.where(is_before, after - 1, after).tolist()
    return nearest


def random_clip(
    clip: Tensor,
    size: tuple[int, int],
    scale: tuple[float, float],
    aspect: tuple[float, float],
    flip: bool,
    generator: Generator,
) -> Tensor:
    """The same random resized crop of all frames, mirrored with probability 1/2 if `flip`; see images.

    clip uint8 [T, 3, H, W], size (h, w)  ->  uint8 [3, T, h, w].
    """
    return random_resized_crop(clip, size, scale, aspect, flip, generator).transpose(0, 1)


def center_clip_view(clip: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest central crop of this aspect, resized: uint8 [T, 3, H, W], size (h, w)  ->  uint8 [3, T, h, w]."""
    return center_view(clip, size).transpose(0, 1)


def spread_clip_view(clip: Tensor, size: tuple[int, int], view: int, views: int) -> Tensor:
    """As `center_clip_view`, but crop number `view` of `views` evenly spaced along the longer side."""
    if views == 1:
        return center_clip_view(clip, size)
    height, width = clip.shape[-2:]
    crop_height, crop_width = largest_box(height, width, size)
    top, left = (round(room * view / (views - 1)) for room in (height - crop_height, width - crop_width))
    return resized_crop(clip, (top, left, crop_height, crop_width), size).transpose(0, 1)
