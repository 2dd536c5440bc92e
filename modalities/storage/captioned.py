"""An image with its captions."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class CaptionedImage(NamedTuple):
    """image: uint8 [3, H, W], RGB; captions: one or more; swaps: by name, a true caption and a false one of the same
    words.
    """

    image: Tensor
    captions: tuple[str, ...]
    swaps: Mapping[str, tuple[str, str]] = {}
