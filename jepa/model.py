"""A JEPA: context encoder, predictor and target encoder, and the step that moves the last one."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils._pytree import tree_map

from jepa.config import ConfigError
from jepa.distributed import local_shards
from jepa.encoder import Encoder, EncoderConfig, PatchEmbedding, take
from jepa.masking import Masks
from jepa.modality import Modality
from jepa.predictor import Predictor, PredictorConfig, PredictorTask
from jepa.transformer import NORM_EPS

TargetKind = Literal["latent", "pixels"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(EncoderConfig):
    """The networks; see EncoderConfig and PredictorConfig.

    target_layers: which outputs of the target encoder are predicted, each layer-normed: so many of the last (1 is the
    last alone, as in I-JEPA; 0 all blocks), or a list of them, in which 0 is the embedded input before the first block.
    target_join: their mean (data2vec, Baevski et al. 2022), or `each` of them by itself (V-JEPA 2.1). projector: width
    of the two layers between the pooled context and the regulariser, which then need not cost what a linear probe finds
    (as the expander of VICReg, Bardes et al. 2022); 0 for none.
    """

    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    target_layers: NonNegativeInt | tuple[NonNegativeInt, ...] = 1
    target_join: Literal["mean", "each"] = "mean"
    projector: NonNegativeInt = 0

    def __post_init__(self) -> None:
        depth, chosen = self.vit.depth, self.target_layers
        if chosen == () or max(chosen if isinstance(chosen, tuple) else (chosen,)) > depth:
            raise ValueError(f"target_layers: an encoder of {depth} blocks has no {chosen}, only 0 to {depth}")

    @property
    def target_outputs(self) -> tuple[int, ...]:
        """The outputs of the encoder that are predicted, as numbered in `target_layers`."""
        chosen = self.target_layers
        return tuple(range(1, self.vit.depth + 1))[-chosen:] if isinstance(chosen, int) else chosen


class Pair(NamedTuple):
    """A guess and what it should have been. L: layers that are predicted by themselves, 1 where there is one target."""

    predicted: Tensor  # [B, M, Kt, L, D]
    target: Tensor  # [B, M, Kt, L, D], no gradient


class Prediction(NamedTuple):
    """What one set of masks gives."""

    pairs: dict[TargetKind, Pair]
    pooled: Tensor  # [B, P], the projected mean of the encoded context


class JEPA(nn.Module):
    """Joint-embedding predictive architecture (Assran et al. 2023, fig. 3).

    targets: the kinds of target that the predictor learns, at each step some of them. `latent` predicts what the target
    encoder, a moving average of the context encoder, makes of the whole input; `pixels` predicts the raw values of the
    hidden patches, normalised per patch: the masked autoencoder (He et al. 2022) on the same encoder, masks and
    predictor. Departs from the masked autoencoder: the loss is that of the config, and an average of the weights is
    kept as well.
    """

    def __init__(
        self, config: ModelConfig, modality: Modality[Any], targets: tuple[TargetKind, ...] = ("latent",)
    ) -> None:
        super().__init__()
        self.config, self.target_kinds = config, targets
        self.context_encoder: Encoder = modality.encoder(config)
        task = PredictorTask(
            inputs=self.context_encoder.dim,
            outputs=sum(math.prod(self._target_shape(kind)) for kind in targets),
            positions=modality.positions,
            position_kind=config.positions,
            initialisation=config.initialisation,
        )
        self.predictor = Predictor(config.predictor, task)
        self.projector = projector(self.context_encoder.dim, config.projector)
        self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)

    def forward(
        self, views: Sequence[Any], masks: Sequence[Masks], kinds: Sequence[TargetKind] = ("latent",)
    ) -> list[Prediction]:
        """Views, each [B, ...], and the sets of masks that are laid over them in turn -> a prediction a set.

        One pass of the target encoder serves all sets of a view.
        """
        targets = {kind: [self.targets(view, kind) for view in views] for kind in kinds}  # [B, N, L, D]
        contexts, guesses = self._predict(views, masks)
        predictions = []
        for number, (masked, context, guess) in enumerate(zip(masks, contexts, guesses, strict=True)):
            whole = {kind: targets[kind][number % len(views)] for kind in kinds}
            pairs = {kind: self._pair(kind, guess, whole[kind], masked) for kind in kinds}
            predictions.append(Prediction(pairs, self.projector(context.mean(dim=1))))
        return predictions

    def guess(self, context: Tensor, masks: Masks, kind: TargetKind = "latent") -> Tensor:
        """What the predictor makes of an encoded context [B, Kc, D]: [B, M, Kt, L, D]."""
        return self._part(kind, self.predictor(context, masks))

    def _pair(self, kind: TargetKind, guess: Tensor, whole: Tensor, masks: Masks) -> Pair:
        """The part of a guess [B, M, Kt, outputs] for one kind of target, and that of the whole target [B, N, L, D]."""
        target = take(whole.flatten(2), masks.target).unflatten(-1, whole.shape[-2:])
        return Pair(self._part(kind, guess), target)

    def _part(self, kind: TargetKind, guess: Tensor) -> Tensor:
        before = self.target_kinds[: self.target_kinds.index(kind)]
        first = sum(math.prod(self._target_shape(other)) for other in before)
        shape = self._target_shape(kind)
        part: Tensor = guess.narrow(-1, first, math.prod(shape)).unflatten(-1, shape)
        return part

    def _predict(self, views: Sequence[Any], masks: Sequence[Masks]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Encoded contexts and guesses, one of each a set; sets of one shape are computed as one larger batch."""
        seen = [views[number % len(views)] for number in range(len(masks))]
        alike = len({(masked.context.shape, masked.target.shape) for masked in masks}) == 1
        if alike and self.config.predictor.mask_tokens == 1:
            together = Masks.concatenate(masks)
            context = self.context_encoder(tree_map(lambda *leaves: torch.cat(leaves), *seen), together.context)
            return context.chunk(len(masks)), self.predictor(context, together).chunk(len(masks))
        contexts = [self.context_encoder(view, masked.context) for view, masked in zip(seen, masks, strict=True)]
        sets = enumerate(zip(contexts, masks, strict=True))
        return contexts, [self.predictor(context, masked, number) for number, (context, masked) in sets]

    @torch.no_grad()
    def targets(self, inputs: Any, kind: TargetKind = "latent", keep: Tensor | None = None) -> Tensor:
        """What is to be predicted, for every token: inputs -> [B, N, L, D].

        Layer-normed: shrinking them must not pay. keep: for `latent`, the tokens [B, K] that alone are seen, and given.
        """
        if kind == "pixels":
            values = self._patch_embedding().patches(inputs).unsqueeze(2)
            return F.layer_norm(values, values.shape[-1:])
        outputs = self.target_encoder.outputs(inputs, keep)
        layers = torch.stack([outputs[index] for index in self.config.target_outputs], dim=2)
        normed = F.layer_norm(layers, layers.shape[-1:])
        if self.config.target_join == "each" or normed.shape[2] == 1:
            return normed
        mean = normed.mean(dim=2, keepdim=True)
        return F.layer_norm(mean, mean.shape[-1:])

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Move the target encoder: target = momentum * target + (1 - momentum) * context, for every weight."""
        move = get_ema_multi_avg_fn(momentum)
        move(local_shards(self.target_encoder), local_shards(self.context_encoder), 0)

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Trade memory for time in the networks that learn."""
        self.context_encoder.activation_checkpointing = enabled
        self.predictor.activation_checkpointing = enabled

    def _target_shape(self, kind: TargetKind) -> tuple[int, int]:
        """Layers and width of a target: L, D."""
        if kind == "pixels":
            return 1, self._patch_embedding().values
        each = self.config.target_join == "each"
        return len(self.config.target_outputs) if each else 1, self.context_encoder.dim

    def _patch_embedding(self) -> PatchEmbedding:
        embedding = self.context_encoder.embedding
        if not isinstance(embedding, PatchEmbedding):
            raise ConfigError("target=pixels needs a modality whose tokens are patches of raw values (PatchEmbedding)")
        return embedding


def projector(dim: int, width: int) -> nn.Module:
    """Pooled contexts -> what the regulariser sees: [B, dim] -> [B, width or, where width is 0, dim].

    Departs from the expander of VICReg: layer norm instead of batch norm, which small batches would not bear.
    """
    if not width:
        return nn.Identity()
    return nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.LayerNorm(width, NORM_EPS), nn.Linear(width, width))
