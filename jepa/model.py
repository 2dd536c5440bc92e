"""A JEPA: context encoder, predictor and target encoder, and the step that moves the last one."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jepa.config import ConfigError
from jepa.encoder import Encoder, EncoderConfig, PatchEmbedding, take
from jepa.masking import Masks
from jepa.modality import Modality
from jepa.predictor import Predictor, PredictorConfig, PredictorTask

TargetKind = Literal["latent", "pixels"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(EncoderConfig):
    """The networks; see EncoderConfig and PredictorConfig.

    target_layers: targets are the mean of this many of the last layers of the target encoder, each layer-normed
    (data2vec, Baevski et al. 2022); 1 is the last layer alone, as in I-JEPA, and 0 all layers.
    """

    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    target_layers: NonNegativeInt = 1


class Prediction(NamedTuple):
    """What one set of masks gives."""

    predicted: Tensor  # [B, M, Kt, D]
    target: Tensor  # [B, M, Kt, D], no gradient
    context: Tensor  # [B, Kc, D], the encoded context


class JEPA(nn.Module):
    """Joint-embedding predictive architecture (Assran et al. 2023, fig. 3).

    target: `latent` predicts what the target encoder, a moving average of the context encoder, makes of the whole
    input; `pixels` predicts the raw values of the hidden patches, normalised per patch: the masked autoencoder (He et
    al. 2022) as a baseline on the same encoder, masks and predictor. Departs from the masked autoencoder: the loss is
    that of the config, and an average of the weights is kept as well.
    """

    def __init__(self, config: ModelConfig, modality: Modality[Any], target: TargetKind = "latent") -> None:
        super().__init__()
        self.config, self.target = config, target
        self.context_encoder: Encoder = modality.encoder(config)
        outputs = self.context_encoder.dim if target == "latent" else self._patch_values()
        task = PredictorTask(
            inputs=self.context_encoder.dim,
            outputs=outputs,
            positions=modality.positions,
            position_kind=config.positions,
            initialisation=config.initialisation,
        )
        self.predictor = Predictor(config.predictor, task)
        self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)

    def forward(self, inputs: Any, masks: Sequence[Masks]) -> list[Prediction]:
        """Inputs [B, ...] and sets of masks -> a prediction a set; one pass of the target encoder serves all."""
        whole = self.targets(inputs)  # [B, N, D]
        predictions = []
        for masked in masks:
            context = self.context_encoder(inputs, masked.context)
            predicted = self.predictor(context, masked)
            predictions.append(Prediction(predicted, take(whole, masked.target), context))
        return predictions

    @torch.no_grad()
    def targets(self, inputs: Any) -> Tensor:
        """What is to be predicted, for every token: inputs -> [B, N, D], layer-normed: shrinking them must not pay."""
        if self.target == "pixels":
            values = self._patch_embedding().patches(inputs)
            return F.layer_norm(values, values.shape[-1:])
        layers = self.target_encoder.layers(inputs)[-self.config.target_layers :]
        normed = [F.layer_norm(layer, layer.shape[-1:]) for layer in layers]
        if len(normed) == 1:
            return normed[0]
        mean = torch.stack(normed).mean(dim=0)
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

    def _patch_embedding(self) -> PatchEmbedding:
        embedding = self.context_encoder.embedding
        if not isinstance(embedding, PatchEmbedding):
            raise ConfigError("target=pixels needs a modality whose tokens are patches of raw values (PatchEmbedding)")
        return embedding

    def _patch_values(self) -> int:
        return self._patch_embedding().values
