"""Videos: tubelets on a grid of time, rows and columns, from files, tar shards or the embedded world of clips."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from jepa.data.given import ValueRange
from jepa.encoder import PatchEmbedding
from jepa.masking import Masks, check_masking, mask_groups, sample_masks
from jepa.modality import Modality, Samples, Split, Task
from modalities.image.views import denormalise, normalise, normalise_bytes, stored_side
from modalities.storage.given import given_pixels
from modalities.storage.opened import Opened
from modalities.storage.sources import source_and_root, with_source
from modalities.storage.splits import StoredSplit
from modalities.storage.value_ranges import value_range_warnings
from modalities.video import views
from modalities.video.config import VideoConfig
from modalities.video.decode.stored import StoredVideo, VideoInfo, reduced
from modalities.video.sources import EVIDENCE, ReadOptions, open_file, open_source
from modalities.video.whole import DecodedVideo
from modalities.video.windows import window_frames, window_spans
from modalities.worlds.moving.dataset import MovingScenes
from modalities.worlds.moving.description import DIRECTIONS, MOTIONS
from modalities.worlds.scenes.dataset import default_cache_dir

_POOLED = (8, 16, 16)  # frames and pixels of the raw-input baseline, as in published ones of small video sets


class Video(Modality[VideoConfig]):
    """Clips as sequences of tubelets, ordered by time, then row, then column."""

    contract, config_type, forecast_axis = 1, VideoConfig, 0

    def __init__(self, config: VideoConfig) -> None:
        config = with_source(config, EVIDENCE)
        super().__init__(config)
        height, width = config.size
        if height % config.patch_size or width % config.patch_size:
            raise ValueError(f"patch_size {config.patch_size} does not divide image_size {height} x {width}")
        if config.frames % config.tubelet:
            raise ValueError(f"tubelet {config.tubelet} does not divide frames {config.frames}")
        if len(config.masking) % config.views:
            raise ValueError(f"masking: {len(config.masking)} sets do not divide among {config.views} views")
        self.grid = (config.frames // config.tubelet, height // config.patch_size, width // config.patch_size)
        self.views = config.views
        for strategy in config.masking:
            check_masking(self.grid, strategy)
        self.mask_groups = mask_groups(config.masking)
        self._opened = Opened()

    @cached_property
    def _labelled_classes(self) -> Sequence[str]:
        return self._open("train").classes

    @property
    def tasks(self) -> Sequence[Task]:  # type: ignore[override]
        """Classes of labelled videos; in the embedded world motion, direction, speed, count and what comes next."""
        if self.config.source != "scenes":
            classes = self._labelled_classes
            return [Task(label="class", kind="class", classes=classes, attentive=(1,))] if classes else []
        return [
            Task(label="motion", kind="class", classes=MOTIONS, attentive=(1,)),
            Task(label="direction", kind="class", classes=DIRECTIONS, attentive=(1,)),
            Task(label="speed", kind="regression"),
            Task(label="count", kind="count"),
            Task(label="next_x", kind="regression"),
            Task(label="next_y", kind="regression"),
            Task(label="collision", kind="regression"),
        ]

    def dataset(self, split: Split) -> Samples:
        """Stored videos, or clips in memory as uint8 [T, 3, H, W]."""
        config = self.config
        if config.source == "scenes":
            return MovingScenes(config.scenes, split, config.frames, max(config.size), default_cache_dir())
        return self._open(split).samples

    def embedding(self, dim: int) -> nn.Module:
        """[B, 3, T, H, W] -> [B, N, dim]."""
        return TubeletEmbedding(self.config.tubelet, self.config.patch_size, dim, self.config.change_scale)

    def data_warnings(self) -> Sequence[str]:
        """Deep images whose values fall into few levels, as `value_range` is not set."""
        if self.config.source != "frames" or self.config.value_range is not None:  # encoded videos have 8 bits
            return ()
        return value_range_warnings(self.dataset("train"), self.evaluation_view, 4)

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        """One mask set per strategy of the config."""
        return [sample_masks(self.grid, strategy, batch_size, generator) for strategy in self.config.masking]

    def training_view(self, inputs: Tensor | StoredVideo, generator: Generator) -> Tensor:
        """A random clip of the video, with one random resized crop for all frames -> float [3, T, H, W]."""
        return self._normalised(self._random_clip(inputs, generator))

    def loader_view(self, inputs: Tensor | StoredVideo, generator: Generator) -> Tensor:
        """As `training_view`, but uint8."""
        return self._random_clip(inputs, generator)

    def to_network(self, views: Tensor) -> Tensor:
        """uint8 [B, 3, T, H, W] -> float [B, 3, T, H, W]."""
        return normalise_bytes(views, self.config.pixel_mean, self.config.pixel_std, axis=1)

    def evaluation_view(self, inputs: Tensor | StoredVideo) -> Tensor:
        """The middle of the video in time and space -> float [3, T, H, W]."""
        return self._normalised(views.center_clip_view(self._test_clip(inputs, clip=0, clips=1), self.config.size))

    def evaluation_views(self, inputs: Tensor | StoredVideo) -> Sequence[Tensor]:
        """`test_clips` along the video, each in `test_crops` crops -> float [3, T, H, W] each."""
        size, clips, crops = self.config.size, self.config.test_clips, self.config.test_crops
        frames = (self._test_clip(inputs, clip, clips) for clip in range(clips))
        cropped = (views.spread_clip_view(clip, size, crop, crops) for clip in frames for crop in range(crops))
        return list(map(self._normalised, cropped))

    def windows(
        self, inputs: Tensor | StoredVideo, length: float, stride: float, unit: str
    ) -> Sequence[tuple[float, float]]:
        """Start and end in seconds of windows along a video; length and stride in seconds, or in frames (`f`)."""
        return window_spans(_as_video(inputs).info, length, stride, in_frames=unit == "f")

    def window_view(self, inputs: Tensor | StoredVideo, start: float, end: float) -> Tensor:
        """Frames that are evenly spread over a window, central crop -> float [3, T, H, W]."""
        frames, size = self.config.frames, self.config.size
        clip = _as_video(inputs).clip(lambda info: window_frames(info, start, end, frames), min(size))
        return self._normalised(views.center_clip_view(clip, size))

    def example_view(self) -> Tensor:
        """An empty clip: float [3, T, H, W]."""
        return torch.zeros(3, self.config.frames, *self.config.size)

    def example_loader_view(self) -> Tensor:
        """An empty clip: uint8 [3, T, H, W]."""
        return torch.zeros(3, self.config.frames, *self.config.size, dtype=torch.uint8)

    def baselines(self, view: Tensor) -> Mapping[str, Tensor]:
        """Pixels, averaged to at most 8 times and 16 x 16; the middle frame alone; and the mean change of each place
        from frame to frame: [3, T, H, W] -> [F] each.
        """
        frames, height, width = map(min, _POOLED, view.shape[1:])
        middle = view[:, view.shape[1] // 2]  # [3, H, W]
        energy = view.diff(dim=1).abs().mean(dim=(0, 1), keepdim=True)[0]  # [1, H, W]
        small = {"middle_frame": middle, "motion_energy": energy}
        pooled = {name: F.adaptive_avg_pool2d(pixels, _POOLED[1:]).flatten() for name, pixels in small.items()}
        return {"raw_input": F.adaptive_avg_pool3d(view, (frames, height, width)).flatten(), **pooled}

    def stored_input(self, given: Any, value_range: ValueRange) -> Tensor | StoredVideo:
        """A path, also of an image or a folder of frames, or an array of frames -> a stored video or a clip."""
        if isinstance(given, str | Path):
            return open_file(Path(given), self._read_options)
        return given_pixels(given, 4, value_range, self.config)

    def picture(self, view: Tensor) -> Tensor:
        """[3, T, H, W] -> uint8 [T, H, W, 3]."""
        pixels = denormalise(view.transpose(0, 1), self.config.pixel_mean, self.config.pixel_std)
        return pixels.permute(0, 2, 3, 1)

    def _normalised(self, clip: Tensor) -> Tensor:
        """uint8 -> float [3, T, H, W]."""
        return normalise(clip, self.config.pixel_mean, self.config.pixel_std, axis=0)

    def _random_clip(self, inputs: Tensor | StoredVideo, generator: Generator) -> Tensor:
        """uint8 [3, T, H, W]."""
        config = self.config

        def choose(info: VideoInfo) -> list[int]:
            return views.random_frames(self._timed(info), config.frames, self._spacing(info), generator)

        frames = _as_video(inputs, config.fps).clip(choose, stored_side(config.size, config.crop_scale))
        return views.random_clip(frames, config.size, config.crop_scale, config.crop_aspect, config.flip, generator)

    def _test_clip(self, inputs: Tensor | StoredVideo, clip: int, clips: int) -> Tensor:
        """One of several clips that are evenly spaced along a video -> uint8 [T, 3, H', W']."""

        def choose(info: VideoInfo) -> list[int]:
            return views.even_frames(self._timed(info), self.config.frames, self._spacing(info), clip, clips)

        # By way of the stored size, so that a video kept whole in memory and one that is read give the same clip.
        stored = _as_video(inputs, self.config.fps).clip(choose, stored_side(self.config.size, self.config.crop_scale))
        return reduced(stored, min(self.config.size))

    def _timed(self, info: VideoInfo) -> VideoInfo:
        """The facts, without the times of frames if clips count frames."""
        return info if self.config.fps is not None else replace(info, seconds=None)

    def _spacing(self, info: VideoInfo) -> float:
        return views.frame_spacing(info, self.config.fps, self.config.step)

    @property
    def _read_options(self) -> ReadOptions:
        config = self.config
        return ReadOptions(
            decoder=config.decoder,
            short_side=stored_side(config.size, config.crop_scale),
            whole_mb=config.whole_mb,
            stored_fps=config.stored_fps,
            pixels=config,
            labels=config.reads_labels,
        )

    def _open(self, split: Split) -> StoredSplit:
        source, root = source_and_root(self.config)
        opened, options = self._opened.at(self.index_folder), self._read_options
        return opened.once(
            (split, self.index_folder), partial(open_source, source, root, split, options, opened=opened)
        )


class TubeletEmbedding(PatchEmbedding):
    """[B, 3, T, H, W] -> [B, N, dim], ordered by time, row, column; equals V-JEPA's strided 3-D convolution.

    change_scale: factor for the differences of frames from the mean of their tubelet, before the projection and in raw
    patches as targets; 1 changes nothing. Departs from V-JEPA: most of a patch stays the same from one frame to the
    next, and small models learn, in few steps, what is constant rather than what changes (docs/video.md).
    """

    def __init__(self, tubelet: int, patch_size: int, dim: int, change_scale: float) -> None:
        pattern = "b c (t u) (h p) (w q) -> b (t h w) (c u p q)"
        sizes = {"u": tubelet, "p": patch_size, "q": patch_size}
        super().__init__(pattern, 3 * tubelet * patch_size**2, dim, sizes)
        self.tubelet, self.change_scale = tubelet, change_scale

    def scaled(self, patches: Tensor) -> Tensor:
        """[B, N, values] -> the same, with the changes between the frames of every tubelet scaled."""
        if self.change_scale == 1:
            return patches
        frames: Tensor = patches.unflatten(-1, (3, self.tubelet, -1))
        mean: Tensor = frames.mean(dim=-2, keepdim=True)
        return (mean + self.change_scale * (frames - mean)).flatten(-3)


def _as_video(inputs: Tensor | StoredVideo, fps: float | None = None) -> StoredVideo:
    """A stored video; a tensor is a clip uint8 [T, 3, H, W], or an image [3, H, W], which gives a still clip.

    fps: frames per second of tensors, which have no times of their own.
    """
    if not isinstance(inputs, Tensor):
        return inputs
    return DecodedVideo(inputs if inputs.ndim == 4 else inputs.unsqueeze(0), fps=fps or 1.0)
