"""Captioned images: patches and words as one set of tokens."""

from modalities.image_text.modality import ImageText

__all__ = ["ImageText"]
