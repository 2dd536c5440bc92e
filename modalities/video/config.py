"""Settings of videos: where they come from, clips, tokens and masks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from jepa.config.effects import Use
from jepa.masking import MaskingConfig, TubeMaskConfig
from jepa.masking.configs import RatioRange, ShareRange
from jepa.modality import DataConfig
from modalities.storage.labels import LabelSettings
from modalities.storage.pixels import NormalisationSettings, PixelSettings, pixel_effects
from modalities.video.decode.video import Decoder
from modalities.video.sources import Source
from modalities.worlds.moving.dataset import MovingScenesConfig

_VJEPA: tuple[MaskingConfig, ...] = (TubeMaskConfig(), TubeMaskConfig(blocks=2, scale=0.7))


@dataclass(frozen=True, kw_only=True)
class VideoConfig(NormalisationSettings, PixelSettings, LabelSettings, DataConfig):
    """Where videos come from and how they become tokens. An image, or a video of one frame, is a still clip.

    source: `scenes` (the embedded world), `folder`, `csv`, `webdataset`, `frames` or `npy`; all but `scenes` need
    `root`. Null means `scenes` without a `root`, and else what `root` holds. decoder: `auto` is PyAV, the only one that
    reads all kinds of files. frames: frames per clip. fps: clip frames per second; null takes every `step`-th frame of
    the file. tubelet: frames per token. change_scale: factor for differences between the frames of a tubelet, see
    TubeletEmbedding. image_size: pixels, a number or [height, width]. patch_size: pixels per side of a token.
    crop_scale, crop_aspect: ranges of the area share and of width / height of the random resized crop, the same for all
    frames of a clip; the only augmentation unless `flip`, which mirrors half of the clips. views: random clips per
    video and step. masking: one strategy per mask set; mask set i applies to view i mod `views`, and all sets of a view
    share one pass of the target encoder. test_clips, test_crops: evaluation averages over this many clips along a
    video, and crops of each along its longer side. whole_mb: videos that take at most this many megabytes when decoded
    are kept in memory whole (see compute.cache_mb). stored_fps: frames per second of the sources `frames` and `npy`.
    """

    completed: ClassVar[Sequence[str]] = ("source",)
    world: ClassVar[str] = "scenes"
    training_only: ClassVar[Sequence[str]] = ("crop_aspect", "flip", "views", "masking")
    of_networks: ClassVar[Sequence[str]] = (
        *("frames", "fps", "step", "tubelet", "change_scale", "image_size", "patch_size", "pixel_mean", "pixel_std"),
        *("views", "masking"),
    )

    source: Literal["scenes"] | Source | None = None
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

    def no_effect(self, use: Use) -> dict[str, str]:
        """Settings without effect, each with the reason."""
        found, reason = super().no_effect(use), f"data.source={self.source} reads no video files"
        if self.source in (self.world, "frames", "npy"):
            found["decoder"] = reason
        if self.source in (self.world, "npy"):
            found |= pixel_effects(self.source)
        if self.source == self.world:
            found["whole_mb"] = "clips of data.source=scenes are in memory"
        if self.source not in ("frames", "npy"):
            found["stored_fps"] = f"data.source={self.source} knows the frame rate of each video"
        if self.fps is not None:
            found["step"] = "data.fps decides which frames are taken"
        if self.tubelet == 1:
            found["change_scale"] = "a tubelet has one frame"
        return found

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size
