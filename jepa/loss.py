"""The training loss: the distance to the targets, plus an optional regulariser and contrast."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Generator, Tensor

from jepa.distributed import gather_rows, mean_over_processes
from jepa.model import Output, Pair, Prediction
from jepa.multiview.distance import Vectors, views_distance
from jepa.ops.contrast import Contrast, contrast_loss as contrast_loss
from jepa.regularisers import sigreg, vicreg, visreg
from jepa.schedules import Fraction
from jepa.targets import VIEWS, VISIBLE, TargetKind

_NORMALISED = ("latent", VISIBLE)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Distance between prediction and target, and the terms added to it.

    normalise_prediction: layer-norm predicted representations (without affine), as the targets are. regulariser: acts
    with weight `regulariser_weight` on the pooled contexts after `model.projector`, on each stream separately;
    see regularisers.py. invariance: weight, inside `regulariser_weight`, of the variance between a sample's pooled
    contexts under different mask sets; in a stage that predicts `views`, their weight replaces it. agreement: weight,
    inside `regulariser_weight`, of the mean squared distance between the pooled streams of a sample (as Bardes et al.
    2022 train on two kinds of input). prediction_weight: weight of the distance.
    contrast_weight: weight of `model.contrast`, if there is one. visible: predict the representations of the context
    tokens too, for features that are good at every place (V-JEPA 2.1, Mur-Labadia et al. 2026): every token weighs the
    same under `uniform`; under `distance` its weight is 1 / sqrt(distance to the nearest hidden token). visible_weight:
    weight of that term, reached linearly between the shares `visible_ramp` of the steps.
    """

    distance: Literal["smooth_l1", "l1", "l2"] = "smooth_l1"
    normalise_prediction: bool = False
    regulariser: Literal["none", "vicreg", "sigreg", "visreg"] = "none"
    regulariser_weight: NonNegativeFloat = 0.05
    invariance: NonNegativeFloat = 0.0
    agreement: NonNegativeFloat = 0.0
    prediction_weight: NonNegativeFloat = 1.0
    contrast_weight: NonNegativeFloat = 1.0
    visible: Literal["none", "uniform", "distance"] = "none"
    visible_weight: NonNegativeFloat = 0.5
    visible_ramp: tuple[Fraction, Fraction] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.visible_ramp[0] > self.visible_ramp[1]:
            raise ValueError(f"visible_ramp: {self.visible_ramp} ends before it starts")

    def visible_at(self, progress: float) -> float:
        """Weight of the visible tokens after this share of the steps."""
        first, full = self.visible_ramp
        share = 1.0 if progress >= full else (progress - first) / (full - first)
        return self.visible_weight * max(0.0, share)


def prediction_loss(
    predictions: Sequence[Prediction],
    config: LossConfig,
    weights: Mapping[TargetKind, float],
    local: Sequence[Vectors] = (),
) -> Tensor:
    """Mean distance between predictions and targets, averaged over sets of masks -> scalar.

    weights: weight of each kind of target. Targets that a sample lacks do not count. local: vectors of
    smaller views, which the kind `views` compares.
    """
    losses = [
        weight * _mean_distance(prediction.pairs[kind], config, config.normalise_prediction and kind in _NORMALISED)
        for prediction in predictions
        for kind, weight in weights.items()
        if kind != VIEWS
    ]
    if VIEWS in weights:
        whole = [prediction.pooled for prediction in predictions]
        losses.append(weights[VIEWS] * len(whole) * views_distance(whole, local))
    return torch.stack(losses).sum() / len(predictions)


def _mean_distance(pair: Pair, config: LossConfig, normalise: bool) -> Tensor:
    nearest = pair.nearest if config.visible == "distance" else None
    if pair.valid is None and nearest is None:
        return distances(pair, config, normalise, "mean")
    of_token = distances(pair, config, normalise, "none").flatten(3).mean(dim=3)  # [B, M, Kt]
    if nearest is not None:
        of_token = of_token / nearest.clamp_min(1).sqrt()
    if pair.valid is None:
        return of_token.mean()
    # Counted over all processes; otherwise targets of a process with few of them would weigh more.
    count = mean_over_processes(pair.valid.sum().float())
    return (of_token * pair.valid).sum() / count.clamp_min(1e-6)  # below the mean of any count that is not 0


def distances(pair: Pair, config: LossConfig, normalise: bool, reduction: str) -> Tensor:
    """Distance of every value [B, M, Kt, L, D], or reduced by `mean` -> scalar."""
    predicted, target = pair.predicted.float(), pair.target.float()
    if normalise:
        predicted = F.layer_norm(predicted, predicted.shape[-1:])
    match config.distance:
        case "smooth_l1":
            return F.smooth_l1_loss(predicted, target, reduction=reduction)
        case "l1":
            return F.l1_loss(predicted, target, reduction=reduction)
        case "l2":
            return F.mse_loss(predicted, target, reduction=reduction)


def total_loss(loss: Tensor, output: Output, config: LossConfig, contrast: Contrast, generator: Generator) -> Tensor:
    """What is minimised: the prediction loss, regulariser and contrast, each with its weight -> scalar."""
    total = config.prediction_weight * loss + regularisation(output.predictions, config, generator, output.local)
    if output.contrast is not None:
        total = total + config.contrast_weight * contrast_loss(output.contrast, contrast)
    return total


def regularisation(
    predictions: Sequence[Prediction], config: LossConfig, generator: Generator, local: Sequence[Vectors] = ()
) -> Tensor:
    """The weighted regulariser of the pooled contexts of the global batch, summed over streams -> scalar.

    local: those of smaller views, each of which is regularised like that of a set of masks.
    """
    streams: dict[str, list[Tensor]] = {}
    for of_view in (*(prediction.pooled for prediction in predictions), *local):
        for stream, pooled in of_view.items():
            streams.setdefault(stream, []).append(pooled)
    if config.regulariser == "none":
        return next(iter(streams.values()))[0].new_zeros(())
    gathered = [[gather_rows(pooled.float()) for pooled in sets] for sets in streams.values()]
    total = torch.stack([_regulariser_of_stream(sets, config, generator) for sets in gathered]).sum()
    if config.agreement and len(gathered) > 1:
        total = total + config.agreement * _stream_distance(gathered)
    return config.regulariser_weight * total


def _regulariser_of_stream(sets: Sequence[Tensor], config: LossConfig, generator: Generator) -> Tensor:
    """Regulariser and invariance of one stream, from its pooled contexts [B, P], one per set of masks -> scalar."""
    total = torch.stack([_regulariser(pooled, config, generator) for pooled in sets]).mean()
    if config.invariance and len(sets) > 1:
        total = total + config.invariance * torch.stack(list(sets)).var(dim=0).mean()
    return total


def _regulariser(pooled: Tensor, config: LossConfig, generator: Generator) -> Tensor:
    """Regulariser of the global batch of one set of masks, [B, P] -> scalar."""
    match config.regulariser:
        case "sigreg":
            return sigreg(pooled, generator)
        case "visreg":
            return visreg(pooled, generator)
        case _:
            return vicreg(pooled)


def _stream_distance(streams: Sequence[Sequence[Tensor]]) -> Tensor:
    """Mean squared distance between the pooled vectors [B, P] of different streams of a sample -> scalar."""
    pairs = [(one, other) for first, second in combinations(streams, 2) for one in first for other in second]
    return torch.stack([F.mse_loss(one, other) for one, other in pairs]).mean()
