"""A custom module as a source of an encoder, from Python."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from jepa.config import ConfigError
from jepa.weights.families.encoder import Encoded, Family, FamilyEncoder, Pixels
from jepa.weights.families.names import FamilyName


class ModuleEncoder(FamilyEncoder):
    """A module that maps images [B, 3, H, W] to tokens [B, N, D] or to a map of features [B, D, rows, columns].

    leading: tokens that are no patches, such as a class token; the first of them is the model's own vector.
    """

    depth = 1

    def __init__(self, module: nn.Module, size: tuple[int, int], leading: int) -> None:
        super().__init__()
        self.module, self.leading, self.pooling = module, leading, "class token" if leading else ""
        self.set_size(size)

    @property
    def patch(self) -> int:
        """Pixels per side of a token."""
        return self.size[0] // self.grid[0]

    def set_size(self, size: tuple[int, int]) -> None:
        """Set the resolution; raises ConfigError if the module does not give a grid of tokens at it."""
        weight = next(self.module.parameters(), torch.zeros(()))
        with torch.inference_mode():
            try:
                found = self.module.eval()(torch.zeros(1, 3, *size, device=weight.device))
            except (AssertionError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"the module does not take images of {size[0]} x {size[1]} pixels: {error}"
                ) from error
        self.size, (self.grid, self.dim) = size, self._grid(found, size)

    def encode(self, images: Tensor, count: int) -> Encoded:
        """The last layer alone."""
        found = self.module(images)
        if found.dim() == 4:
            return Encoded([found.flatten(2).transpose(1, 2)], None)
        return Encoded([found[:, self.leading :]], found[:, 0] if self.leading else None)

    def _grid(self, found: Any, size: tuple[int, int]) -> tuple[tuple[int, int], int]:
        """Grid and width of what the module returns for one image; raises ConfigError."""
        if not isinstance(found, Tensor) or found.dim() not in (3, 4):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ConfigError(f"the module returns {shape}; expected tokens [B, N, D] or a map [B, D, rows, columns]")
        count, width = found.shape[1] - self.leading, found.shape[-1]
        if found.dim() == 4:
            grid, width = (found.shape[2], found.shape[3]), found.shape[1]
        else:
            rows = round((max(0, count) * size[0] / size[1]) ** 0.5)
            grid = (rows, count // max(1, rows))
        patch = size[0] // max(1, grid[0])
        if grid != (size[0] // max(1, patch), size[1] // max(1, patch)) or (
            found.dim() == 3 and grid[0] * grid[1] != count
        ):
            raise ConfigError(f"{list(found.shape)} holds no grid of square patches of {size[0]} x {size[1]} pixels")
        return grid, width


@dataclass(frozen=True)
class ModuleFamily(Family):
    """A trained module, and how to make one with random weights; `open_source` and `evaluate_run` take it as a source.

    module: see ModuleEncoder, with `leading`. untrained: makes the same architecture. image_size: height and width in
    pixels. pixels: mean and standard deviation that the module expects, white being 1.
    """

    module: nn.Module
    untrained: Callable[[], nn.Module]
    image_size: tuple[int, int]
    pixels: Pixels = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    leading: int = 0
    name: FamilyName = field(default=FamilyName("module", "custom", ""), kw_only=True)

    @cached_property
    def skeleton(self) -> FamilyEncoder:
        """The encoder at its own resolution."""
        return self.build(self.image_size)

    @property
    def native(self) -> tuple[int, int]:
        """The image size."""
        return self.image_size

    def check(self) -> None:
        """There is nothing to check."""

    def build(self, size: tuple[int, int]) -> ModuleEncoder:
        """An untrained module."""
        return ModuleEncoder(self.untrained(), size, self.leading)

    def load(self, encoder: FamilyEncoder) -> None:
        """Take the weights of the trained module."""
        assert isinstance(encoder, ModuleEncoder)
        encoder.module = copy.deepcopy(self.module)
