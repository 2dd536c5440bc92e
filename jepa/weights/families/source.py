"""Encoders of other families as sources: their config for a modality, and the encoder at the config's resolution."""

from typing import Any

from torch import Tensor

from jepa.checkpoint import CheckpointError
from jepa.config import ConfigError, Tree
from jepa.modality import Modality
from jepa.training.config import Config
from jepa.weights.families.encoder import Encoded, Family, FamilyEncoder
from jepa.weights.families.names import FamilyName
from jepa.weights.families.open_clip_towers import OpenClipFamily
from jepa.weights.families.timm_models import TimmFamily

MODALITIES = ("image", "video")


def family_of(name: FamilyName) -> Family:
    """The family of a name."""
    return TimmFamily(name) if name.library == "timm" else OpenClipFamily(name)


def config_of(family: Family, modality: str) -> Tree:
    """Settings of a modality under which the encoder sees what it was trained on; raises CheckpointError."""
    if modality not in MODALITIES:
        raise CheckpointError(f"{family.name} encodes images, and frames of videos, not data of modality '{modality}'")
    encoder, (mean, std) = family.skeleton, family.pixels
    height, width = (side // encoder.patch * encoder.patch for side in family.native)  # a rest is not embedded
    masking: Any = {"kind": "random", "ratio": 0.5}  # fits every grid
    data = {
        "image_size": height if height == width else [height, width],
        "patch_size": encoder.patch,
        "pixel_mean": list(mean),
        "pixel_std": list(std),
        "masking": [masking] if modality == "video" else masking,
    }
    size = {"width": encoder.dim, "depth": encoder.depth, "heads": 1}
    return {"modality": modality, "run_dir": str(family.name), "data": data, "model": {"size": size}}


def encoder_at(family: Family, config: Config[Any, Any], modality: Modality[Any], trained: bool) -> FamilyEncoder:
    """The encoder for views of a modality, or the same architecture with random weights; raises ConfigError."""
    patch = family.skeleton.patch
    if config.data.patch_size != patch:
        raise ConfigError(f"data.patch_size: {family.name} has patches of {patch} pixels, which cannot be changed")
    rows, columns = modality.grid[-2:]
    encoder = family.encoder((rows * patch, columns * patch), seed=config.seed, trained=trained)
    if encoder.grid != (rows, columns):
        raise ConfigError(f"data.image_size: {family.name} gives {encoder.grid} tokens, not {(rows, columns)}")
    return encoder if len(modality.grid) == 2 else FramesEncoder(encoder, config.data.tubelet)


class FramesEncoder(FamilyEncoder):
    """An encoder of images applied to every frame of a clip; tokens are averaged over the frames of a tubelet."""

    def __init__(self, encoder: FamilyEncoder, tubelet: int) -> None:
        super().__init__()
        self.of_frames, self.tubelet = encoder, tubelet
        self.grid, self.dim, self.depth = encoder.grid, encoder.dim, encoder.depth
        self.pooling = f"{encoder.pooling}, mean over frames" if encoder.pooling else ""

    @property
    def patch(self) -> int:
        """Pixels per side of a token."""
        return self.of_frames.patch

    def set_size(self, size: tuple[int, int]) -> None:
        """Set height and width of the frames."""
        self.of_frames.set_size(size)
        self.grid = self.of_frames.grid

    def encode(self, images: Tensor, count: int) -> Encoded:
        """[B, 3, T, H, W] -> [B, T / tubelet x N, D] each, [B, F]."""
        frames = images.transpose(1, 2)  # [B, T, 3, H, W]
        layers, pooled = self.of_frames.encode(frames.flatten(0, 1), count)
        joined = [layer.unflatten(0, (-1, self.tubelet)).mean(dim=1) for layer in layers]  # [B T / tubelet, N, D]
        clips = [layer.unflatten(0, (len(images), -1)).flatten(1, 2) for layer in joined]
        return Encoded(clips, None if pooled is None else pooled.unflatten(0, frames.shape[:2]).mean(dim=1))
