"""Images as sequences of patches."""

from modalities.image.config import ImageConfig
from modalities.image.modality import Image

__all__ = ["Image", "ImageConfig"]
