"""Windows that slide along a video, and the frames that represent one."""

import numpy as np

from modalities.video.decode.stored import VideoInfo
from modalities.video.views import Times, nearest

_TOLERANCE = 1e-6  # seconds, of sums of floats


def window_spans(info: VideoInfo, length: float, stride: float, in_frames: bool) -> list[tuple[float, float]]:
    """Start and end in seconds of windows from the start of a video on; the last one ends with the video.

    length, stride: in seconds, or in frames at the mean frame rate. A shorter video is one window.
    """
    if in_frames:
        length, stride = length / info.fps, stride / info.fps
    duration = float(_times(info)[-1]) + 1 / info.fps
    count = int((duration - length + _TOLERANCE) / stride) + 1 if duration + _TOLERANCE >= length else 0
    if not count:
        return [(0.0, duration)]
    spans = [(number * stride, number * stride + length) for number in range(count)]
    if spans[-1][1] < duration - 1 / (2 * info.fps):
        spans.append((duration - length, duration))
    return spans


def window_frames(info: VideoInfo, start: float, end: float, frames: int) -> list[int]:
    """Indices of the frames nearest to evenly spaced times of a window, the first at its start."""
    times = _times(info)
    if len(times) == 1:
        return [0] * frames
    return nearest(times, start + (end - start) * np.arange(frames) / frames)


def _times(info: VideoInfo) -> Times:
    """Seconds of all frames since the first."""
    return np.arange(info.frames) / info.fps if info.seconds is None else info.seconds
