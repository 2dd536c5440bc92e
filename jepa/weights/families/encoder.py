"""The interface of encoders of other families: images -> patch tokens, and the model's own pooled vector."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jepa.config import ConfigError
from jepa.encoder import TokenEncoder, mean_tokens
from jepa.masking import Masks
from jepa.positions import Grid
from jepa.weights.families.names import FamilyName

Pixels = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and deviation of R, G, B, white being 1


class Encoded(NamedTuple):
    """Patch tokens of some layers, the last one normed [B, N, D] each; the model's own pooled vector [B, F], if any."""

    layers: list[Tensor]
    pooled: Tensor | None


class FamilyEncoder(TokenEncoder):
    """An encoder of another family: images [B, 3, H, W] -> its patch tokens [B, N, D], without class and registers.

    grid: rows and columns of tokens. depth: layers that `layers` returns. pooling: how the model itself pools an image
    into one vector, in words; empty if its vector is the mean of the tokens.
    """

    grid: Grid
    depth: int
    pooling: str

    @property
    @abstractmethod
    def patch(self) -> int:
        """Pixels per side of a token."""

    @abstractmethod
    def set_size(self, size: tuple[int, int]) -> None:
        """Set height and width of the images, multiples of `patch`; positions are interpolated."""

    @abstractmethod
    def encode(self, images: Tensor, count: int) -> Encoded:
        """The last `count` layers, and the pooled vector: [B, 3, H, W] -> [B, N, D] each, [B, F]."""

    def forward(self, inputs: Any, masks: Masks | None = None) -> Tensor:
        """[B, 3, H, W] -> [B, N, D], normed."""
        return self.last_layers(inputs, masks, 1)[0]

    def layers(self, inputs: Any, masks: Masks | None = None) -> list[Tensor]:
        """Output of every block, the last one normed: depth times [B, N, D]."""
        return self.last_layers(inputs, masks, self.depth)

    def last_layers(self, inputs: Any, masks: Masks | None, count: int) -> list[Tensor]:
        """The last `count` of the `layers`, or all if there are fewer."""
        if masks is not None:
            raise ConfigError("an encoder of another family encodes all tokens of an image, not parts of them")
        return self.encode(inputs, count).layers

    def outputs(self, inputs: Any, masks: Masks | None = None) -> list[Tensor]:
        """Raises ConfigError: these encoders do not show the embedded tokens before their first block."""
        raise ConfigError("an encoder of another family has no output before its first block; use `layers`")

    def pool(self, tokens: Tensor, masks: Masks | None = None) -> dict[str, Tensor]:
        """The mean of the tokens."""
        return {"tokens": mean_tokens(tokens, None)}

    def fsdp_units(self) -> list[nn.Module]:
        """None: these encoders are not trained here."""
        return []


@dataclass(frozen=True)
class Family(ABC):
    """The models of a library under one name: how to build one, and what its weights expect."""

    name: FamilyName

    def __str__(self) -> str:
        return str(self.name)

    def encoder(self, size: tuple[int, int], *, seed: int = 0, trained: bool = True) -> FamilyEncoder:
        """The encoder in evaluation mode at a resolution; untrained, or named `random`: with random weights of a seed.

        Raises CheckpointError.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = self.build(size)
        if trained and not self.name.is_random:
            self.load(encoder)
        encoder.set_size(size)
        return encoder.eval().requires_grad_(False)

    @cached_property
    def skeleton(self) -> FamilyEncoder:
        """The encoder without weights, to read its sizes; raises CheckpointError for a name that does not exist."""
        self.check()
        with torch.device("meta"):
            return self.build(self.native)

    @abstractmethod
    def check(self) -> None:
        """Raise CheckpointError if the library has no such model, or its weights cannot be used as named."""

    @abstractmethod
    def build(self, size: tuple[int, int]) -> FamilyEncoder:
        """The encoder with random weights; positions of a library that cannot change them later are of this size."""

    @abstractmethod
    def load(self, encoder: FamilyEncoder) -> None:
        """Load the weights of the name; raises CheckpointError."""

    @property
    @abstractmethod
    def native(self) -> tuple[int, int]:
        """Height and width of the images that the weights expect."""

    @property
    @abstractmethod
    def pixels(self) -> Pixels:
        """Statistics of pixels that the weights expect."""
