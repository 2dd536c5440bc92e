"""Settings of images: where they come from, tokens and masks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from jepa.config.effects import Use
from jepa.masking import BlockMaskConfig, MaskingConfig
from jepa.masking.configs import RatioRange, ShareRange
from jepa.modality import DataConfig
from modalities.image.colour import ColourConfig
from modalities.image.sources import FILES
from modalities.image.views import stored_side
from modalities.storage.labels import LabelSettings
from modalities.storage.pixels import NormalisationSettings, PixelSettings, pixel_effects
from modalities.storage.torchvision_sets import Arguments
from modalities.worlds.scenes.dataset import ScenesConfig

AugmentPlace = Literal["workers", "device"]


@dataclass(frozen=True, kw_only=True)
class ImageConfig(NormalisationSettings, PixelSettings, LabelSettings, DataConfig):
    """Where images come from and how they become tokens.

    source: `scenes` (the embedded world), `folder`, `webdataset`, or the name of a torchvision data set; all but
    `scenes` need `root`. Null means `scenes` without a `root`, and else what `root` holds. torchvision: more arguments
    of the constructor of a torchvision data set. image_size: pixels, a number or [height, width]. patch_size: pixels
    per side of a token. crop_scale, crop_aspect: ranges of the area share and of width / height of the random resized
    crop, the only augmentation unless `flip` mirrors half of the views and `colour` changes their colours. views: crops
    per sample and step. mask_sets: mask sets per sample and step; mask set i applies to view i mod `views`, and all
    sets of a view share one pass of the target encoder. local_views: smaller crops per sample and step, encoded whole,
    for the target `views`. local_size: their pixels, as `image_size`; null for half of it, in whole patches.
    local_scale: as `crop_scale`, for them. augment_on: `workers`, or `device`, which makes the crops, flips and colours
    of a whole batch at once, as the workers drew them, of stored images that have one size.
    """

    completed: ClassVar[Sequence[str]] = ("source",)
    world: ClassVar[str] = "scenes"
    training_only: ClassVar[Sequence[str]] = (
        *("crop_aspect", "flip", "colour", "views", "mask_sets", "masking"),
        *("local_views", "local_size", "local_scale", "augment_on"),
    )
    may_change: ClassVar[Sequence[str]] = (*DataConfig.may_change, "augment_on")
    of_networks: ClassVar[Sequence[str]] = (
        *("image_size", "patch_size", "pixel_mean", "pixel_std"),
        *("views", "mask_sets", "masking", "local_views", "local_size", "local_scale"),
    )

    source: str | None = None
    torchvision: Arguments | None = None
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 224
    patch_size: PositiveInt = 16
    crop_scale: ShareRange = (0.3, 1.0)
    crop_aspect: RatioRange = (3 / 4, 4 / 3)
    flip: bool = False
    colour: ColourConfig | None = None
    augment_on: AugmentPlace = "workers"
    mask_sets: PositiveInt = 1
    views: PositiveInt = 1
    local_views: NonNegativeInt = 0
    local_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    local_scale: ShareRange = (0.05, 0.3)
    masking: MaskingConfig = field(default_factory=BlockMaskConfig)
    scenes: ScenesConfig = field(default_factory=ScenesConfig)

    def no_effect(self, use: Use) -> dict[str, str]:
        """Settings without effect, each with the reason."""
        found = super().no_effect(use)
        if self.torchvision is not None and self.source in (self.world, *FILES):
            found["torchvision"] = f"data.source={self.source} is not a torchvision data set"
        if not self.local_views:
            found |= dict.fromkeys(("local_size", "local_scale"), "data.local_views is 0")
        return found | (pixel_effects(self.source) if self.source == self.world else {})

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return _sides(self.image_size)

    @property
    def size_of_local(self) -> tuple[int, int]:
        """Height and width of the smaller views in pixels."""
        if self.local_size is not None:
            return _sides(self.local_size)
        height, width = (max(1, side // self.patch_size // 2) * self.patch_size for side in self.size)
        return height, width

    @property
    def stored_side(self) -> int:
        """Pixels needed on the shorter side of a stored image; see `stored_side` of views.py."""
        whole = stored_side(self.size, self.crop_scale)
        return max(whole, stored_side(self.size_of_local, self.local_scale)) if self.local_views else whole


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
