"""What the predictor learns to predict: representations, raw patches, or the values of a custom function."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa.config import ConfigError
from jepa.config.imports import imported
from jepa.encoder import PatchEmbedding, TokenEncoder
from jepa.masking import Masks, hidden_tokens, sets_together
from jepa.modality import Modality
from jepa.model_config import NetworksConfig

TargetKind = str  # `latent`, `pixels`, or a function as package.module:function; beside `latent`, VISIBLE
VISIBLE = "visible"  # representations of the context tokens, see `loss.visible`


def check_target(kind: str) -> str:
    """Return `kind` unchanged; raises ValueError if it is not a kind of target."""
    if kind not in ("latent", "pixels") and ":" not in kind:
        raise ValueError(f"'{kind}' is not a target; use latent, pixels, or a function as package.module:function")
    return kind


class EncodedTargets(NamedTuple):
    """What a set of masks selects its targets from. places: where they are in `tokens`."""

    tokens: Tensor  # [B, n, L, D]: all N tokens, or the hidden ones alone
    places: Tensor  # [B, M, Kt]


class Target(ABC):
    """One kind of target. layers: L, layers that are predicted separately; width: D, values per token and layer."""

    layers: int = 1
    width: int

    @property
    def values(self) -> int:
        """Outputs of the predictor for each token."""
        return self.layers * self.width

    @abstractmethod
    def __call__(self, inputs: Any, encoder: TokenEncoder, masks: Masks | None = None) -> Tensor:
        """Targets of all tokens: inputs, target encoder -> [B, N, L, D].

        masks: if given, `latent` encodes the tokens of `masks.context` alone -> [B, Kc, L, D]; other kinds ignore it.
        """

    def of_sets(self, views: Sequence[Any], sets: Sequence[Masks], encoder: TokenEncoder) -> list[EncodedTargets]:
        """Targets of every set of masks; set i applies to view i mod V of the V views."""
        of_views = [self(view, encoder) for view in views]
        return [EncodedTargets(of_views[number % len(views)], one.target) for number, one in enumerate(sets)]


class Latent(Target):
    """Outputs of the target encoder, layer-normed: otherwise shrinking them would lower the loss.

    Under `target_input=hidden`, the target encoder sees in training only what the context encoder does not (M2D,
    Niizumi et al. 2023): one pass per set of masks, those with equally many hidden tokens in one batch.
    """

    def __init__(self, config: NetworksConfig, width: int, tokens: int) -> None:
        self.layer_indices, self.width = config.target_outputs, width
        self.hidden_only, self.tokens = config.target_input == "hidden", tokens
        self.each = config.target_join == "each"
        self.layers = len(self.layer_indices) if self.each else 1

    def __call__(self, inputs: Any, encoder: TokenEncoder, masks: Masks | None = None) -> Tensor:
        """Representations of the whole input, or of the tokens of `masks.context` when only they are encoded."""
        outputs = encoder.select(inputs, masks, self.layer_indices)
        normed = [F.layer_norm(output, output.shape[-1:]) for output in outputs]
        if self.each or len(normed) == 1:
            return torch.stack(normed, dim=2)
        mean = torch.stack(normed).mean(dim=0)
        return F.layer_norm(mean, mean.shape[-1:]).unsqueeze(2)

    def of_sets(self, views: Sequence[Any], sets: Sequence[Masks], encoder: TokenEncoder) -> list[EncodedTargets]:
        """Targets of every set of masks, from passes of the whole views or of the hidden tokens."""
        if not self.hidden_only:
            return super().of_sets(views, sets, encoder)
        hidden = [hidden_tokens(one, self.tokens) for one in sets]
        passes = sets_together(views, [tokens for tokens, _ in hidden], [one.context.shape for one in sets])
        encoded: dict[int, Tensor] = {}
        for numbers, inputs, together in passes:
            encoded.update(zip(numbers, self(inputs, encoder, together).chunk(len(numbers)), strict=True))
        return [EncodedTargets(encoded[number], places) for number, (_, places) in enumerate(hidden)]


class Pixels(Target):
    """Raw values of patches, normalised per patch, as the masked autoencoder predicts them (He et al. 2022)."""

    def __init__(self, encoder: TokenEncoder) -> None:
        self.width = _patch_embedding(encoder).values

    def __call__(self, inputs: Any, encoder: TokenEncoder, masks: Masks | None = None) -> Tensor:
        """Normalised patches of all tokens."""
        patches = _patch_embedding(encoder).patches(inputs).unsqueeze(2)
        return F.layer_norm(patches, patches.shape[-1:])


class Custom(Target):
    """Values of a function `package.module:function`: (inputs [B, ...], target encoder) -> [B, N, D].

    They are predicted unchanged: a function that uses the encoder must layer-norm its values, or shrinking them would
    lower the loss. It is called without gradients, also on tensors without values (device `meta`).
    """

    def __init__(self, kind: TargetKind, modality: Modality[Any], encoder: TokenEncoder) -> None:
        from jepa.plugins.functions import TargetFunction, checked_width  # most runs have no custom target

        try:
            self.function: TargetFunction = imported(kind)
        except ValueError as error:
            raise ConfigError(f"target: {error}") from error
        self.width = checked_width(kind, self.function, modality, encoder)

    def __call__(self, inputs: Any, encoder: TokenEncoder, masks: Masks | None = None) -> Tensor:
        """Values of all tokens."""
        return self.function(inputs, encoder).unsqueeze(2)


def build_target(kind: TargetKind, config: NetworksConfig, modality: Modality[Any], encoder: TokenEncoder) -> Target:
    """The target of a kind; raises ConfigError if it does not fit the modality."""
    match kind:
        case "latent":
            return Latent(config, encoder.dim, len(modality.positions))
        case "pixels":
            return Pixels(encoder)
        case _:
            return Custom(kind, modality, encoder)


def _patch_embedding(encoder: TokenEncoder) -> PatchEmbedding:
    embedding = getattr(encoder, "embedding", None)
    if not isinstance(embedding, PatchEmbedding):
        raise ConfigError("target=pixels needs a modality whose tokens are patches of raw values (PatchEmbedding)")
    return embedding
