"""What the predictor learns to predict: representations, raw patches, or the values of a custom function."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from jepa.config import ConfigError
from jepa.config.imports import imported
from jepa.encoder import PatchEmbedding, TokenEncoder, gather_tokens
from jepa.masking import Masks, sets_together, views_together
from jepa.modality import Modality
from jepa.model_config import NetworksConfig
from jepa.ops.norms import standardised

TargetKind = str  # `latent`, `pixels`, VIEWS, or a function as package.module:function; beside `latent`, VISIBLE
VIEWS = "views"  # no tokens are predicted: the views of a sample are pulled together, see jepa/multiview/distance.py
VISIBLE = "visible"  # representations of the context tokens, see `loss.visible`


def check_target(kind: str) -> str:
    """Return `kind` unchanged; raises ValueError if it is not a kind of target."""
    if kind not in ("latent", "pixels", VIEWS) and ":" not in kind:
        known = "latent, pixels, views, or a function as package.module:function"
        raise ValueError(f"'{kind}' is not a target; use {known}")
    return kind


class EncodedTargets(NamedTuple):
    """What a set of masks selects its targets from. indices: where they are among the n tokens."""

    raw: Sequence[Tensor]  # tensors [B, n, D], see `Target.raw`; n: all N tokens, or the predicted ones alone
    indices: Tensor  # [B, M, Kt]


class Target(ABC):
    """One kind of target. layers: L, layers that are predicted separately; width: D, values per token and layer."""

    layers: int = 1
    width: int

    @property
    def values(self) -> int:
        """Outputs of the predictor for each token."""
        return self.layers * self.width

    def __call__(self, inputs: Any, encoder: TokenEncoder, masks: Masks | None = None) -> Tensor:
        """Targets of all tokens: inputs, target encoder -> [B, N, L, D].

        masks: if given, `latent` encodes the tokens of `masks.context` alone -> [B, Kc, L, D]; other kinds ignore it.
        """
        return self.finished(self.raw(inputs, encoder, masks))

    @abstractmethod
    def raw(self, inputs: Any, encoder: TokenEncoder, masks: Masks | None = None) -> Sequence[Tensor]:
        """Tensors [B, N, D] that `finished` turns into the targets of all tokens."""

    @abstractmethod
    def finished(self, raw: Sequence[Tensor]) -> Tensor:
        """Targets of any tokens from their values in `raw`, [..., D] each -> [..., L, D]."""

    def selected(self, raw: Sequence[Tensor], indices: Tensor) -> Tensor:
        """Targets of the tokens with some indices: [B, n, D] each, [B, ...] -> [B, ..., L, D]."""
        return self.finished([gather_tokens(one, indices) for one in raw])

    def of_sets(self, views: Sequence[Any], sets: Sequence[Masks], encoder: TokenEncoder) -> list[EncodedTargets]:
        """Targets of every set of masks; set i applies to view i mod V of the V views."""
        of_views = self._of_views(views, encoder)
        return [EncodedTargets(of_views[number % len(views)], one.target) for number, one in enumerate(sets)]

    def _of_views(self, views: Sequence[Any], encoder: TokenEncoder) -> list[Sequence[Tensor]]:
        return [self.raw(view, encoder) for view in views]


class Latent(Target):
    """Outputs of the target encoder, layer-normed: otherwise shrinking them would lower the loss.

    Under `target_input=predicted`, the target encoder sees in training the targets of a set of masks and nothing else,
    as in M2D (Niizumi et al. 2023): one pass per set, sets of one shape as one batch.
    """

    def __init__(self, config: NetworksConfig, width: int) -> None:
        self.layer_indices, self.width = config.target_outputs, width
        self.sees_all, self.each = config.target_input == "all", config.target_join == "each"
        self.layers = len(self.layer_indices) if self.each else 1

    def raw(self, inputs: Any, encoder: TokenEncoder, masks: Masks | None = None) -> Sequence[Tensor]:
        """Layers of the whole input, or of the tokens of `masks.context` when only they are encoded."""
        return encoder.select(inputs, masks, self.layer_indices)

    def finished(self, raw: Sequence[Tensor]) -> Tensor:
        """The layer-normed layers, or their mean."""
        normed = standardised(torch.stack(list(raw), dim=-2))
        return normed if self.each or len(raw) == 1 else standardised(normed.mean(dim=-2, keepdim=True))

    def of_sets(self, views: Sequence[Any], sets: Sequence[Masks], encoder: TokenEncoder) -> list[EncodedTargets]:
        """Targets of every set of masks, from passes of the whole views or of the predicted tokens."""
        if self.sees_all:
            return super().of_sets(views, sets, encoder)
        targets = [one.of_targets() for one in sets]
        encoded: dict[int, Sequence[Tensor]] = {}
        for numbers, inputs, together in sets_together(views, targets, [one.target.shape for one in sets]):
            encoded.update(zip(numbers, _parts(self.raw(inputs, encoder, together), len(numbers)), strict=True))
        every = [torch.arange(one.target.shape[2], device=one.target.device).expand_as(one.target) for one in sets]
        return [EncodedTargets(encoded[number], indices) for number, indices in enumerate(every)]

    def _of_views(self, views: Sequence[Any], encoder: TokenEncoder) -> list[Sequence[Tensor]]:
        """Views of one shape are one larger batch: small batches cost more per sample."""
        shapes = [[leaf.shape for leaf in tree_leaves(view)] for view in views]
        if len(views) == 1 or shapes.count(shapes[0]) < len(views):
            return super()._of_views(views, encoder)
        return _parts(self.raw(views_together(views), encoder), len(views))


class Pixels(Target):
    """Raw values of patches, normalised per patch, as the masked autoencoder predicts them (He et al. 2022)."""

    def __init__(self, encoder: TokenEncoder) -> None:
        self.width = _patch_embedding(encoder).values

    def raw(self, inputs: Any, encoder: TokenEncoder, masks: Masks | None = None) -> Sequence[Tensor]:
        """Patches of all tokens."""
        return [_patch_embedding(encoder).patches(inputs)]

    def finished(self, raw: Sequence[Tensor]) -> Tensor:
        """Normalised patches."""
        return standardised(raw[0]).unsqueeze(-2)


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
            raise ConfigError(f"stages: {error}") from error
        self.width = checked_width(kind, self.function, modality, encoder)

    def raw(self, inputs: Any, encoder: TokenEncoder, masks: Masks | None = None) -> Sequence[Tensor]:
        """Values of all tokens."""
        return [self.function(inputs, encoder)]

    def finished(self, raw: Sequence[Tensor]) -> Tensor:
        """The values unchanged."""
        return raw[0].unsqueeze(-2)


def build_target(kind: TargetKind, config: NetworksConfig, modality: Modality[Any], encoder: TokenEncoder) -> Target:
    """The target of a kind; raises ConfigError if it does not fit the modality."""
    match kind:
        case "latent":
            return Latent(config, encoder.dim)
        case "pixels":
            return Pixels(encoder)
        case _:
            return Custom(kind, modality, encoder)


def _parts(tensors: Sequence[Tensor], count: int) -> list[Sequence[Tensor]]:
    """The tensors of each of `count` equal parts of a batch."""
    return list(zip(*(tensor.chunk(count) for tensor in tensors), strict=True))


def _patch_embedding(encoder: TokenEncoder) -> PatchEmbedding:
    embedding = getattr(encoder, "embedding", None)
    if not isinstance(embedding, PatchEmbedding):
        raise ConfigError("predicting pixels needs a modality whose tokens are patches of raw values (PatchEmbedding)")
    return embedding
