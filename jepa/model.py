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
from jepa.encoder import Encoder, EncoderConfig, PatchEmbedding, take
from jepa.masking import Masks
from jepa.modality import Modality
from jepa.predictor import Predictor, PredictorConfig, PredictorTask

TargetKind = Literal["latent", "pixels"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(EncoderConfig):
    """The networks; see EncoderConfig and PredictorConfig.

    target_layers: which outputs of the target encoder are predicted, each layer-normed: so many of the last (1 is the
    last alone, as in I-JEPA; 0 all blocks), or a list of them, in which 0 is the embedded input before the first block.
    target_join: their mean (data2vec, Baevski et al. 2022), or `each` of them by itself (V-JEPA 2.1).
    """

    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    target_layers: NonNegativeInt | tuple[NonNegativeInt, ...] = 1
    target_join: Literal["mean", "each"] = "mean"

    def __post_init__(self) -> None:
        depth, chosen = self.vit.depth, self.target_layers
        if chosen == () or max(chosen if isinstance(chosen, tuple) else (chosen,)) > depth:
            raise ValueError(f"target_layers: an encoder of {depth} blocks has no {chosen}, only 0 to {depth}")

    @property
    def target_outputs(self) -> tuple[int, ...]:
        """The outputs of the encoder that are predicted, as numbered in `target_layers`."""
        chosen = self.target_layers
        return tuple(range(1, self.vit.depth + 1))[-chosen:] if isinstance(chosen, int) else chosen


class Prediction(NamedTuple):
    """What one set of masks gives. L: layers that are predicted by themselves, 1 where there is one target."""

    predicted: Tensor  # [B, M, Kt, L, D]
    target: Tensor  # [B, M, Kt, L, D], no gradient
    context: Tensor  # [B, Kc, D], the encoded context


class JEPA(nn.Module):
    """Joint-embedding predictive architecture (Assran et al. 2023, fig. 3).

    targets: the kinds of target that the predictor learns, at each step one of them. `latent` predicts what the target
    encoder, a moving average of the context encoder, makes of the whole input; `pixels` predicts the raw values of the
    hidden patches, normalised per patch: the masked autoencoder (He et al. 2022) as a baseline on the same encoder,
    masks and predictor. Departs from the masked autoencoder: the loss is that of the config, and an average of the
    weights is kept as well.
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
        self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)

    def forward(self, inputs: Any, masks: Sequence[Masks], kind: TargetKind = "latent") -> list[Prediction]:
        """Inputs [B, ...] and sets of masks -> a prediction a set; one pass of the target encoder serves all."""
        whole = self.targets(inputs, kind)  # [B, N, L, D]
        shape = whole.shape[-2:]
        first = sum(math.prod(self._target_shape(before)) for before in self.target_kinds[: self._place(kind)])
        contexts, predicted = self._predict(inputs, masks)
        predictions = []
        for masked, context, values in zip(masks, contexts, predicted, strict=True):
            values = values.narrow(-1, first, shape.numel()).unflatten(-1, shape)
            target = take(whole.flatten(2), masked.target).unflatten(-1, shape)
            predictions.append(Prediction(values, target, context))
        return predictions

    def _predict(self, inputs: Any, masks: Sequence[Masks]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Encoded contexts and predictions, one of each a set; sets of one shape are computed as one larger batch."""
        if len({(masked.context.shape, masked.target.shape) for masked in masks}) == 1:
            together = Masks.concatenate(masks)
            context = self.context_encoder(
                tree_map(lambda leaf: torch.cat([leaf] * len(masks)), inputs), together.context
            )
            return context.chunk(len(masks)), self.predictor(context, together).chunk(len(masks))
        contexts = [self.context_encoder(inputs, masked.context) for masked in masks]
        return contexts, [self.predictor(context, masked) for context, masked in zip(contexts, masks, strict=True)]

    @torch.no_grad()
    def targets(self, inputs: Any, kind: TargetKind = "latent") -> Tensor:
        """What is to be predicted, for every token: inputs -> [B, N, L, D].

        Layer-normed: shrinking them must not pay.
        """
        if kind == "pixels":
            values = self._patch_embedding().patches(inputs).unsqueeze(2)
            return F.layer_norm(values, values.shape[-1:])
        outputs = self.target_encoder.outputs(inputs)
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
        move(list(self.target_encoder.parameters()), list(self.context_encoder.parameters()), 0)

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Trade memory for time in the networks that learn."""
        self.context_encoder.activation_checkpointing = enabled
        self.predictor.activation_checkpointing = enabled

    def _place(self, kind: TargetKind) -> int:
        return self.target_kinds.index(kind)

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
