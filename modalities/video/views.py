"""Selects the frames of a clip from a video, and crops a clip: all frames with the same box.

Frames of a clip are evenly spaced. A video that is too short for the spacing gives a denser clip over its whole length,
with repeated frames if necessary; a clip that freezes at its end would be too easy to predict. An image is a video of
one frame and gives a still clip.
"""

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2.functional import resized_crop

from modalities.image.views import center_view, largest_box, normalise, random_resized_crop
from modalities.video.decode.stored import VideoInfo


def frame_spacing(info: VideoInfo, fps: float | None, step: int) -> float:
    """Distance between frames of a clip, in frames of the video: from `fps` if given, otherwise `step`.

    It is computed from the mean frame rate of the video; a higher `fps` than that repeats frames.
    """
    return float(step) if fps is None else info.fps / fps


def random_frames(info: VideoInfo, frames: int, spacing: float, generator: Generator) -> list[int]:
    """Frame indices of a random clip; every start is equally likely, up to the last that fits."""
    offsets = _offsets(info, frames, spacing)
    start = int(torch.randint(info.frames - offsets[-1], (), generator=generator))
    return [start + offset for offset in offsets]


def even_frames(info: VideoInfo, frames: int, spacing: float, clip: int = 0, clips: int = 1) -> list[int]:
    """Frame indices of clip number `clip` of `clips` evenly spaced clips.

    The first clip starts with the video and the last ends with it; a single clip is in the middle.
    """
    offsets = _offsets(info, frames, spacing)
    latest = info.frames - 1 - offsets[-1]
    start = latest // 2 if clips == 1 else round(latest * clip / (clips - 1))
    return [start + offset for offset in offsets]


def _offsets(info: VideoInfo, frames: int, spacing: float) -> list[int]:
    """Offsets of the frames of a clip from its first frame, rounded, within the length of the video."""
    fitting = min(spacing, (info.frames - 1) / max(1, frames - 1))
    return [int(fitting * number + 0.5) for number in range(frames)]


def random_clip_view(
    clip: Tensor,
    size: tuple[int, int],
    scale: tuple[float, float],
    aspect: tuple[float, float],
    flip: bool,
    generator: Generator,
) -> Tensor:
    """The same random resized crop of all frames, mirrored with probability 1/2 if `flip`; see images.

    clip uint8 [T, 3, H, W], size (h, w)  ->  float32 [3, T, h, w], normalised.
    """
    return _as_view(random_resized_crop(clip, size, scale, aspect, flip, generator))


def center_clip_view(clip: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest central crop of this aspect, resized: uint8 [T, 3, H, W], size (h, w)  ->  float32 [3, T, h, w]."""
    return _as_view(center_view(clip, size))


def spread_clip_view(clip: Tensor, size: tuple[int, int], view: int, views: int) -> Tensor:
    """As `center_clip_view`, but crop number `view` of `views` evenly spaced along the longer side."""
    if views == 1:
        return center_clip_view(clip, size)
    height, width = clip.shape[-2:]
    crop_height, crop_width = largest_box(height, width, size)
    top, left = (round(room * view / (views - 1)) for room in (height - crop_height, width - crop_width))
    return _as_view(resized_crop(clip, top, left, crop_height, crop_width, size=list(size), antialias=True))


def _as_view(clip: Tensor) -> Tensor:
    return normalise(clip).transpose(0, 1)
