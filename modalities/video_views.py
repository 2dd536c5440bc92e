"""Which frames of a video make a clip, and how a clip is cropped: one box for all of its frames."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2.functional import resized_crop

from modalities.image_views import center_view, normalise, random_resized_crop
from modalities.video_stored import VideoInfo


def frame_indices(
    info: VideoInfo,
    frames: int,
    rate: float | None,
    step: int,
    generator: Generator | None,
    clip: int = 0,
    clips: int = 1,
) -> list[int]:
    """Indices of `frames` frames of one clip, evenly spaced in time.

    rate: frames a second, of which the nearest are taken by the video's own mean rate; where it is None every `step`-th
    frame is taken. A rate above the video's repeats frames.
    generator: the start is drawn from it, every start that fits being equally likely, so that each frame of the video,
    the last too, can be seen. Without one, clip number `clip` of `clips` that are spread evenly: one lies in the
    middle, of several the first begins with the video and the last ends with it.
    A video that is too short for the spacing gives a denser clip, spread over all there is, frames repeated as need
    be; of a single frame it is a still.
    """
    if not 0 <= clip < clips:
        raise ValueError(f"clip {clip} is asked for of {clips}")
    spacing = min(info.fps / rate if rate else step, (info.frames - 1) / max(1, frames - 1))
    span = spacing * (frames - 1)  # in frames of the video, from the first to the last of the clip
    latest = info.frames - 1 - span  # start that fits
    if generator is not None:
        start = _drawn_start(latest, generator)
    else:
        start = latest / 2 if clips == 1 else latest * clip / (clips - 1)
        start = int(start + 1e-6)
    return [min(info.frames - 1, int(start + spacing * number + 0.5)) for number in range(frames)]
