"""Settings of captioned images: data, objectives and towers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import PositiveInt

from jepa.config.effects import Use
from jepa.masking import BlockMaskConfig, MaskingConfig
from jepa.masking.configs import RatioRange, ShareRange
from jepa.modality import DataConfig
from jepa.model_config import Contrast, NetworksConfig
from modalities.image_text.masks import Objectives
from modalities.image_text.open_clip_files import PixelStatistics, TowerSizes, pixel_statistics
from modalities.image_text.towers import Towers, build_towers
from modalities.storage.labels import LabelSettings
from modalities.storage.pixels import Deviation, Mean, PixelSettings, pixel_effects
from modalities.worlds.scenes.dataset import ScenesConfig

_NAMED = ("a photo of a {}.", "a picture of a {}.", "an image of {}.")


@dataclass(frozen=True, kw_only=True)
class ImageTextConfig(PixelSettings, LabelSettings, DataConfig):
    """Where captioned images come from, and what is hidden from the networks.

    source: `scenes` (the embedded world with captions), `folder` (a list of images and captions), `webdataset`, `coco`,
    or `images` (without captions, to embed and search them); all but `scenes` need `root`. Null means `scenes` without
    a `root`, and else what `root` holds. A step uses one random caption per image. crop_scale, crop_aspect: ranges of
    the area share and of width / height of the random resized crop; there is no flip, because captions distinguish left
    from right. pixel_mean, pixel_std: normalisation of red, green and blue (white is 1); null takes what the weights,
    or else the architecture, expect. objectives: what is hidden and predicted. masking: strategy of the hidden regions.
    prompts: templates for zero-shot classification, with {} for the name of the class.
    """

    completed: ClassVar[Sequence[str]] = ("source", "pixel_mean", "pixel_std")
    world: ClassVar[str] = "scenes"
    training_only: ClassVar[Sequence[str]] = ("crop_aspect",)
    of_networks: ClassVar[Sequence[str]] = ("pixel_mean", "pixel_std", "objectives", "masking")

    source: Literal["scenes", "folder", "webdataset", "coco", "images"] | None = None
    crop_scale: ShareRange = (0.9, 1.0)
    crop_aspect: RatioRange = (3 / 4, 4 / 3)
    pixel_mean: tuple[Mean, Mean, Mean] | None = None
    pixel_std: tuple[Deviation, Deviation, Deviation] | None = None
    objectives: Objectives = field(default_factory=Objectives)
    masking: MaskingConfig = field(default_factory=BlockMaskConfig)
    prompts: tuple[str, ...] = _NAMED
    scenes: ScenesConfig = field(default_factory=ScenesConfig)

    def no_effect(self, use: Use) -> dict[str, str]:
        """Settings without effect, each with the reason."""
        found = super().no_effect(use) | (pixel_effects(self.source) if self.source == self.world else {})
        if not self.objectives.hides_regions and self.objectives.caption_from == "whole":
            found["masking"] = "no objective hides regions"
        return found

    def __post_init__(self) -> None:
        for prompt in self.prompts:
            if prompt.count("{}") != 1 or prompt.count("{") + prompt.count("}") > 2:
                raise ValueError(f"prompts: {prompt!r} needs {{}} once, for the name of the class, and no other brace")


@dataclass(frozen=True, kw_only=True)
class TowersConfig(NetworksConfig):
    """The networks: two towers of open_clip and a predictor.

    size: name of an architecture of open_clip, a folder (`local-dir:PATH`), or a mapping with embed_dim, vision_cfg and
    text_cfg as in open_clip's JSON. pretrained: initial weights, as a tag of open_clip, a file or a folder; null for
    random ones. image_size: pixels, a number or [height, width]; null for the architecture's. contrast: additional
    contrastive loss of images and captions over the batch, `none`, `infonce` (CLIP) or `sigmoid` (SigLIP).
    """

    size: str | TowerSizes = "ViT-B-32"
    pretrained: str | None = None
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    contrast: Contrast = "none"

    def __post_init__(self) -> None:
        if self.target_layers != 1:
            raise ValueError("target_layers: the towers output only their last layer, so it must be 1")
        if self.predictor.mask_tokens != 1:
            raise ValueError("predictor.mask_tokens: the mask sets differ between steps, so it must be 1")

    @property
    def depth(self) -> int:
        """Number of outputs that can be targets."""
        return 1

    @property
    def target_outputs(self) -> tuple[int, ...]:
        """The only output."""
        return (0,)

    def build(self, pretrained: str | None) -> Towers:
        """The towers, with pretrained weights or, for None, random ones; raises ValueError if that fails."""
        size = self.image_size
        pixels = (size, size) if isinstance(size, int) else size
        return build_towers(self.size, pretrained=pretrained, image_size=pixels)

    def pixel_statistics(self) -> tuple[PixelStatistics, PixelStatistics]:
        """Mean and standard deviation of pixels that the towers expect; raises ValueError without the weights."""
        return pixel_statistics(self.size, self.pretrained)
