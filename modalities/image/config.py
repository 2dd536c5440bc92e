"""Settings of images: where they come from, tokens and masks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import PositiveInt

from jepa.config.effects import Use
from jepa.masking import BlockMaskConfig, MaskingConfig
from jepa.masking.configs import RatioRange, ShareRange
from jepa.modality import DataConfig
from modalities.image.sources import FILES
from modalities.storage.labels import LabelSettings
from modalities.storage.pixels import NormalisationSettings, PixelSettings, pixel_effects
from modalities.storage.torchvision_sets import Arguments
from modalities.worlds.scenes.dataset import ScenesConfig


@dataclass(frozen=True, kw_only=True)
class ImageConfig(NormalisationSettings, PixelSettings, LabelSettings, DataConfig):
    """Where images come from and how they become tokens.

    source: `scenes` (the embedded world), `folder`, `webdataset`, or the name of a torchvision data set; all but
    `scenes` need `root`. Null means `scenes` without a `root`, and else what `root` holds. torchvision: more arguments
    of the constructor of a torchvision data set. image_size: pixels, a number or [height, width]. patch_size: pixels
    per side of a token. crop_scale, crop_aspect: ranges of the area share and of width / height of the random resized
    crop, the only augmentation unless `flip` mirrors half of the views. views: crops per sample and step. mask_sets:
    mask sets per sample and step; mask set i applies to view i mod `views`, and all sets of a view share one pass of
    the target encoder.
    """

    completed: ClassVar[Sequence[str]] = ("source",)
    world: ClassVar[str] = "scenes"
    training_only: ClassVar[Sequence[str]] = ("crop_aspect", "flip", "views", "mask_sets", "masking")
    of_networks: ClassVar[Sequence[str]] = (
        *("image_size", "patch_size", "pixel_mean", "pixel_std"),
        *("views", "mask_sets", "masking"),
    )

    source: str | None = None
    torchvision: Arguments | None = None
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 224
    patch_size: PositiveInt = 16
    crop_scale: ShareRange = (0.3, 1.0)
    crop_aspect: RatioRange = (3 / 4, 4 / 3)
    flip: bool = False
    mask_sets: PositiveInt = 1
    views: PositiveInt = 1
    masking: MaskingConfig = field(default_factory=BlockMaskConfig)
    scenes: ScenesConfig = field(default_factory=ScenesConfig)

    def no_effect(self, use: Use) -> dict[str, str]:
        """Settings without effect, each with the reason."""
        found = super().no_effect(use)
        if self.torchvision is not None and self.source in (self.world, *FILES):
            found["torchvision"] = f"data.source={self.source} is not a torchvision data set"
        return found | (pixel_effects(self.source) if self.source == self.world else {})

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size
