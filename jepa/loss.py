"""The training loss: distance to the targets, and what is added to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Generator, Tensor

from jepa.distributed import gather_rows, mean_over_processes
from jepa.model import Contrasted, Pair, Prediction, TargetKind
from jepa.model_config import Contrast
from jepa.regularisers import sigreg, vicreg


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Distance between prediction and target, and what is added to it.

    normalise_prediction: layer-norm predictions of representations (without affine) as the targets are. regulariser:
    acts on the pooled and projected contexts (`model.projector`) with weight `regulariser_weight`, on each stream of
    tokens by itself. Within that weight, invariance: of how far apart those of several sets of masks of one sample may
    lie; agreement: of how far apart those of its streams may (as Bardes et al. 2022 train on two kinds of input).
    prediction_weight: 0 leaves what is added to it alone. contrast_weight: of `model.contrast`, where there is one.
    """

    distance: Literal["smooth_l1", "l1", "l2"] = "smooth_l1"
    normalise_prediction: bool = False
    regulariser: Literal["none", "vicreg", "sigreg"] = "none"
    regulariser_weight: NonNegativeFloat = 0.05
    invariance: NonNegativeFloat = 0.0
    agreement: NonNegativeFloat = 0.0
    prediction_weight: NonNegativeFloat = 1.0
    contrast_weight: NonNegativeFloat = 1.0


def prediction_loss(
    predictions: Sequence[Prediction], config: LossConfig, weights: Mapping[TargetKind, float]
) -> Tensor:
    """Mean distance over predicted values, every set of masks weighing the same, each kind by its weight -> scalar.

    What a sample does not have is not counted.
    """
    losses = [
        weight * _mean_distance(prediction.pairs[kind], config, config.normalise_prediction and kind == "latent")
        for prediction in predictions
        for kind, weight in weights.items()
    ]
    return torch.stack(losses).sum() / len(predictions)


def _mean_distance(pair: Pair, config: LossConfig, normalise: bool) -> Tensor:
    if pair.present is None:
        return _distances(pair, config, normalise, "mean")
    of_token = _distances(pair, config, normalise, "none").flatten(3).mean(dim=3)  # [B, M, Kt]
    # Counted over all processes, or a target would weigh the more the fewer its process happens to have.
    count = mean_over_processes(pair.present.sum().float())
    return (of_token * pair.present).sum() / count.clamp_min(_ANY_COUNT)


_ANY_COUNT = 1e-6  # less than the mean of any count over processes that is not 0


def _distances(pair: Pair, config: LossConfig, normalise: bool, reduction: str) -> Tensor:
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


def sample_distances(pair: Pair, config: LossConfig) -> Tensor:
    """The loss of each sample by itself, for one set of masks and representations as targets: -> [B].

    Not a number for a sample that has none of the targets.
    """
    of_token = _distances(pair, config, config.normalise_prediction, "none").flatten(3).mean(dim=3)  # [B, M, Kt]
    present = torch.ones_like(of_token) if pair.present is None else pair.present.to(of_token)
    return (of_token * present).flatten(1).sum(dim=1) / present.flatten(1).sum(dim=1)


def added_loss(
    predictions: Sequence[Prediction], config: LossConfig, contrast: Contrast, generator: Generator
) -> Tensor:
    """What is added to the prediction loss: regulariser and contrast of streams, by their weights -> scalar."""
    total = regularisation(predictions, config, generator)
    contrasted = predictions[0].contrasted
    if contrasted is not None:
        total = total + config.contrast_weight * contrast_loss(contrasted, contrast)
    return total


def contrast_loss(contrasted: Contrasted, kind: Contrast) -> Tensor:
    """How badly the matching vectors of two streams are told from all others of the global batch -> scalar.

    infonce: cross-entropy of the match among all, in both directions (van den Oord et al. 2018; Radford et al. 2021);
    sigmoid: every pair by itself matches or not, summed over the pairs of a sample (Zhai et al. 2023).
    """
    first, second = (F.normalize(gather_rows(rows.float()), dim=-1) for rows in contrasted.streams)
    scores = contrasted.scale * first @ second.T + contrasted.shift  # [B, B]
    if kind == "infonce":
        match = torch.arange(len(scores), device=scores.device)
        return (F.cross_entropy(scores, match) + F.cross_entropy(scores.T, match)) / 2
    signs = 2 * torch.eye(len(scores), device=scores.device) - 1
    return -F.logsigmoid(signs * scores).sum() / len(scores)


def regularisation(predictions: Sequence[Prediction], config: LossConfig, generator: Generator) -> Tensor:
    """The weighted regulariser on the pooled contexts of the global batch, a sum over streams -> scalar."""
    streams: dict[str, list[Tensor]] = {}
    for prediction in predictions:
        for stream, pooled in prediction.pooled.items():
            streams.setdefault(stream, []).append(pooled)
    if config.regulariser == "none":
        return next(iter(streams.values()))[0].new_zeros(())
    gathered = [[gather_rows(pooled.float()) for pooled in views] for views in streams.values()]
    total = torch.stack([_of_stream(views, config, generator) for views in gathered]).sum()
    if config.agreement and len(gathered) > 1:
        total = total + config.agreement * _apart(gathered)
    return config.regulariser_weight * total


def _of_stream(views: Sequence[Tensor], config: LossConfig, generator: Generator) -> Tensor:
    """Regulariser and invariance of one stream, from its pooled contexts, one a set of masks: [B, P] each -> scalar."""
    if config.regulariser == "vicreg":
        terms = [vicreg(view) for view in views]
    else:
        terms = [sigreg(view, generator) for view in views]
    total = torch.stack(terms).mean()
    if config.invariance and len(views) > 1:
        total = total + config.invariance * torch.stack(list(views)).var(dim=0).mean()
    return total


def _apart(streams: Sequence[Sequence[Tensor]]) -> Tensor:
    """Mean squared distance of the vectors of different streams of a sample: lists of [B, P] -> scalar."""
    pairs = [(one, other) for first, second in combinations(streams, 2) for one in first for other in second]
    return torch.stack([F.mse_loss(one, other) for one, other in pairs]).mean()
