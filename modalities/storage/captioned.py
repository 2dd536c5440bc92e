"""An image and what is said of it."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class Captioned(NamedTuple):
    """image: uint8 [3, H, W], RGB; captions: one or more; swaps: by name, a caption that is true of the image and one
    of the same words that is not.
    """

    image: Tensor
    captions: tuple[str, ...]
    swaps: Mapping[str, tuple[str, str]] = {}
