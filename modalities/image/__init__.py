"""Images as sequences of patches."""

from modalities.image.modality import Image, ImageConfig

__all__ = ["Image", "ImageConfig"]
