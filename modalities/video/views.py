"""Which frames of a video make a clip, and how a clip is cropped: one box for all of its frames.

Frames of a clip are evenly spaced. A video that is too short for the spacing gives a denser clip, spread over all there
is, with frames repeated as need be, rather than one whose end stands still and is easily predicted; an image, a video
of one frame, is a clip that stands still.
"""

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2.functional import resized_crop

from modalities.image.views import center_view, largest_box, normalise, random_resized_crop
from modalities.video.stored import VideoInfo


def frame_spacing(info: VideoInfo, fps: float | None, step: int) -> float:
    """Frames of the video from one frame of a clip to the next: by `fps`, frames a second, where it is given.

    Time is counted by the mean rate of the video; a rate above it repeats frames.
    """
    return float(step) if fps is None else info.fps / fps


def random_frames(info: VideoInfo, frames: int, spacing: float, generator: Generator) -> list[int]:
    """Indices of a clip of `frames` frames; every start that fits is equally likely, the last frame among them."""
    offsets = _offsets(info, frames, spacing)
    start = int(torch.randint(info.frames - offsets[-1], (), generator=generator))
    return [start + offset for offset in offsets]


def even_frames(info: VideoInfo, frames: int, spacing: float, clip: int = 0, clips: int = 1) -> list[int]:
    """Indices of clip number `clip` of `clips` that are spread evenly: the first begins with the video, the last ends

    with it; a single one lies in the middle.
    """
    offsets = _offsets(info, frames, spacing)
    latest = info.frames - 1 - offsets[-1]
    start = latest // 2 if clips == 1 else round(latest * clip / (clips - 1))
    return [start + offset for offset in offsets]


def _offsets(info: VideoInfo, frames: int, spacing: float) -> list[int]:
    """Of each frame of a clip from its first: the nearest frames, within the length of the video."""
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
    """One random part of all frames, mirrored half the time if `flip`, as `random_resized_crop` of images.

    clip uint8 [T, 3, H, W], size (h, w)  ->  float32 [3, T, h, w], normalised.
    """
    return _as_view(random_resized_crop(clip, size, scale, aspect, flip, generator))


def center_clip_view(clip: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest centred part of the right shape: uint8 [T, 3, H, W], size (h, w)  ->  float32 [3, T, h, w]."""
    return _as_view(center_view(clip, size))


def spread_clip_view(clip: Tensor, size: tuple[int, int], view: int, views: int) -> Tensor:
    """As `center_clip_view`, but crop number `view` of `views` that are spread evenly along the side with room."""
    if views == 1:
        return center_clip_view(clip, size)
    height, width = clip.shape[-2:]
    crop_height, crop_width = largest_box(height, width, size)
    top, left = (round(room * view / (views - 1)) for room in (height - crop_height, width - crop_width))
    return _as_view(resized_crop(clip, top, left, crop_height, crop_width, size=list(size), antialias=True))


def _as_view(clip: Tensor) -> Tensor:
    return normalise(clip).transpose(0, 1)
