"""Sizes of vision transformers by name."""

from dataclasses import dataclass
from typing import Literal

from pydantic import PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class VitSize:
    """Size of a vision transformer."""

    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    mlp_ratio: PositiveFloat = 4.0

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads of even size")


SizeName = Literal[
    "vit_nano", "vit_tiny", "vit_small", "vit_base", "vit_large", "vit_huge", "vit_giant", "vit_giant_22_heads",
    "vit_gigantic",
]  # fmt: skip
SIZES: dict[SizeName, VitSize] = {  # as in I-JEPA (Assran et al. 2023), except nano, which is for CPUs
    "vit_nano": VitSize(width=128, depth=4, heads=4),
    "vit_tiny": VitSize(width=192, depth=12, heads=3),
    "vit_small": VitSize(width=384, depth=12, heads=6),
    "vit_base": VitSize(width=768, depth=12, heads=12),
    "vit_large": VitSize(width=1024, depth=24, heads=16),
    "vit_huge": VitSize(width=1280, depth=32, heads=16),
    "vit_giant": VitSize(width=1408, depth=40, heads=16, mlp_ratio=48 / 11),
    "vit_giant_22_heads": VitSize(width=1408, depth=40, heads=22, mlp_ratio=48 / 11),  # V-JEPA 2's g
    "vit_gigantic": VitSize(width=1664, depth=48, heads=26, mlp_ratio=64 / 13),  # V-JEPA 2.1's G
}
