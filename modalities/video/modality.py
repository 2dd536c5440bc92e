"""Videos: tubelets on a grid of time, rows and columns, from files, tar shards or the embedded world that moves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Generator, Tensor, nn

from jepa.masking import MaskingConfig, Masks, TubeMaskConfig, check_masking, sample_masks
from jepa.masking.configs import RatioRange, ShareRange
from jepa.modality import DataConfig, Modality, Samples, Split, Task
from modalities.image.views import denormalise
from modalities.video.decode.video import Decoder
from modalities.video.sources import Reading, Source, VideoSource, open_source
from modalities.video.stored import StoredVideo, VideoInfo
from modalities.video.tubelets import TubeletEmbedding
from modalities.video.views import (
    center_clip_view,
    even_frames,
    frame_spacing,
    random_clip_view,
    random_frames,
    spread_clip_view,
)
from modalities.video.whole import DecodedVideo
from modalities.worlds.moving.dataset import MovingScenes, MovingScenesConfig
from modalities.worlds.moving.description import DIRECTIONS, MOTIONS
from modalities.worlds.scenes.dataset import default_cache_dir

_FLOOR_SIDE = 16  # pixels a side of the floors, as the published ones of small video sets
_FLOOR_TIMES = 8
_VJEPA: tuple[MaskingConfig, ...] = (TubeMaskConfig(), TubeMaskConfig(blocks=2, scale=0.7))


@dataclass(frozen=True, kw_only=True)
class VideoConfig(DataConfig):
    """Where videos come from and how they become tokens.

    source: `scenes` (the embedded world), `folder`, `csv`, `webdataset`, `frames` or `npy`; all but the first need
    `root`. decoder: `auto` takes the fastest that is installed. frames: of a clip, `fps` of them a second or, where
    that is null, every `step`-th of the file. tubelet: frames a token. change_scale: by how much changes
    within a tubelet are enlarged, see TubeletEmbedding. image_size: pixels, a number or [height, width]. crop_scale,
    crop_aspect: random resized crop, one for all frames of a clip, the only augmentation unless `flip`.
    masking: a strategy for each set of masks; all sets of a view share one pass of the target encoder. views: clips a
    video a step, over which the sets are shared out. test_clips, test_crops: clips along a video, and crops of each
    along its longer side, over which an evaluation averages. whole_mb: videos that take no more megabytes when decoded
    are kept in memory as a whole (see compute.cache_mb). stored_fps: frames a second of `frames` and `npy`, which do
    not tell. An image, or a video of one frame, is a clip that stands still.
    """

    source: Literal["scenes"] | Source = "scenes"
    decoder: Decoder = "auto"
    frames: PositiveInt = 16
    fps: PositiveFloat | None = None
    step: PositiveInt = 1
    tubelet: PositiveInt = 2
    change_scale: PositiveFloat = 1.0
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 224
    patch_size: PositiveInt = 16
    crop_scale: ShareRange = (0.3, 1.0)
    crop_aspect: RatioRange = (3 / 4, 1.35)
    flip: bool = False
    views: PositiveInt = 1
    masking: Annotated[tuple[MaskingConfig, ...], Field(min_length=1)] = _VJEPA
    test_clips: PositiveInt = 1
    test_crops: PositiveInt = 1
    whole_mb: Annotated[float, Field(ge=0)] = 8.0
    stored_fps: PositiveFloat = 25.0
    scenes: MovingScenesConfig = field(default_factory=MovingScenesConfig)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size


class Video(Modality[VideoConfig]):
    """Clips as sequences of tubelets, time after time and row by row."""

    contract, config_type = 1, VideoConfig
    forecast_axis = 0

    def __init__(self, config: VideoConfig) -> None:
        super().__init__(config)
        height, width = config.size
        if height % config.patch_size or width % config.patch_size:
            raise ValueError(f"patch_size {config.patch_size} does not divide image_size {height} x {width}")
        if config.frames % config.tubelet:
            raise ValueError(f"tubelet {config.tubelet} does not divide frames {config.frames}")
        if config.source != "scenes" and config.root is None:
            raise ValueError(f"source '{config.source}' needs data.root, the folder or file that holds it")
        if len(config.masking) % config.views:
            raise ValueError(f"masking: {len(config.masking)} sets do not divide among {config.views} views")
        self.grid = (config.frames // config.tubelet, height // config.patch_size, width // config.patch_size)
        self.views = config.views
        for strategy in config.masking:
            check_masking(self.grid, strategy)

    @cached_property
    def _labelled_classes(self) -> Sequence[str]:
        return self._open("train").classes

    @property
    def tasks(self) -> Sequence[Task]:  # type: ignore[override]
        """Classes where videos are labelled; in the embedded world motion, direction, speed, count, what comes next."""
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

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        """A set of masks by each strategy of the config."""
        return [sample_masks(self.grid, strategy, batch_size, generator) for strategy in self.config.masking]

    def training_view(self, inputs: Tensor | StoredVideo, generator: Generator) -> Tensor:
        """A clip from anywhere in the video, one random resized crop of all frames -> float [3, T, H, W]."""
        config = self.config

        def choose(info: VideoInfo) -> list[int]:
            return random_frames(info, config.frames, frame_spacing(info, config.fps, config.step), generator)

        frames = _as_video(inputs).clip(choose, self._stored_side)
        return random_clip_view(frames, config.size, config.crop_scale, config.crop_aspect, config.flip, generator)

    def evaluation_view(self, inputs: Tensor | StoredVideo) -> Tensor:
        """The middle of the video in time and space -> float [3, T, H, W]."""
        return center_clip_view(self._test_clip(inputs, clip=0, clips=1), self.config.size)

    def evaluation_views(self, inputs: Tensor | StoredVideo) -> Sequence[Tensor]:
        """`test_clips` along the video, each in `test_crops` crops -> float [3, T, H, W] each."""
        config = self.config
        clips = (self._test_clip(inputs, clip, config.test_clips) for clip in range(config.test_clips))
        crops = range(config.test_crops)
        return [spread_clip_view(clip, config.size, crop, config.test_crops) for clip in clips for crop in crops]

    def _test_clip(self, inputs: Tensor | StoredVideo, clip: int, clips: int) -> Tensor:
        """One of several clips that are spread along a video -> uint8 [T, 3, H', W']."""
        config = self.config

        def choose(info: VideoInfo) -> list[int]:
            return even_frames(info, config.frames, frame_spacing(info, config.fps, config.step), clip, clips)

        return _as_video(inputs).clip(choose, min(config.size))

    def example_view(self) -> Tensor:
        """An empty clip: float [3, T, H, W]."""
        return torch.zeros(3, self.config.frames, *self.config.size)

    def baselines(self, view: Tensor) -> Mapping[str, Tensor]:
        """Pixels, averaged down to at most 8 times and 16 a side; the frame in the middle alone; and how much each
        place changes from frame to frame: [3, T, H, W] -> [F] each.
        """
        size = min(_FLOOR_TIMES, view.shape[1]), min(_FLOOR_SIDE, view.shape[2]), min(_FLOOR_SIDE, view.shape[3])
        middle = view[:, view.shape[1] // 2]  # [3, H, W]
        energy = view.diff(dim=1).abs().mean(dim=(0, 1), keepdim=True)[0]  # [1, H, W]
        small = {"middle_frame": middle, "motion_energy": energy}
        pooled = {name: F.adaptive_avg_pool2d(pixels, _FLOOR_SIDE).flatten() for name, pixels in small.items()}
        return {"raw_input": F.adaptive_avg_pool3d(view, size).flatten(), **pooled}

    def picture(self, view: Tensor) -> Tensor:
        """[3, T, H, W] -> uint8 [T, H, W, 3]."""
        return denormalise(view.transpose(0, 1)).permute(0, 2, 3, 1)

    @property
    def _stored_side(self) -> int:
        """Pixels that suffice for the shorter side, so that the smallest crop is not enlarged."""
        return math.ceil(min(self.config.size) / math.sqrt(self.config.crop_scale[0]))

    def _open(self, split: Split) -> VideoSource:
        config = self.config
        assert config.source != "scenes"
        assert config.root is not None  # checked in __init__
        reading = Reading(
            decoder=config.decoder,
            short_side=self._stored_side,
            whole_mb=config.whole_mb,
            stored_fps=config.stored_fps,
        )
        return open_source(config.source, config.root.expanduser(), split, reading)


def _as_video(inputs: Tensor | StoredVideo) -> StoredVideo:
    """What is stored as a video; a tensor is a clip uint8 [T, 3, H, W], or an image [3, H, W] that stands still."""
    if not isinstance(inputs, Tensor):
        return inputs
    return DecodedVideo(inputs if inputs.ndim == 4 else inputs.unsqueeze(0), fps=1.0)
