"""Prediction losses, optional regularisers against collapse, and the signs of collapse."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Generator, Tensor

from jepa.distributed import gather_rows, mean_over_processes
from jepa.model import Contrasted, Pair, Prediction, TargetKind
from jepa.networks import Contrast


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


def vicreg(features: Tensor) -> Tensor:
    """Variance and covariance terms with weights 1 and 1/25: [B, D] -> scalar (Bardes et al. 2022, eq. 1-4).

    Departs from VICReg: its invariance term is the JEPA's prediction loss, and `LossConfig.invariance`.
    """
    centred = features - features.mean(dim=0)
    deviation = (centred.square().sum(dim=0) / (len(features) - 1) + 1e-4).sqrt()
    covariance = centred.T @ centred / (len(features) - 1)
    off_diagonal = covariance - torch.diag(covariance.diagonal())
    return F.relu(1 - deviation).mean() + off_diagonal.square().sum() / features.shape[1] / 25


def sigreg(features: Tensor, generator: Generator, slices: int = 256, knots: int = 17) -> Tensor:
    """Distance of random projections from a standard normal: [B, D] -> scalar (Balestriero & LeCun 2025, LeJEPA).

    Epps-Pulley statistic of each projection: the weighted squared distance of the empirical characteristic function
    from exp(-t^2 / 2), integrated by the trapezoid rule over |t| <= 3. Departs from LeJEPA: not multiplied by the
    number of samples, so that its weight does not depend on the batch size.
    """
    directions = F.normalize(torch.randn(features.shape[1], slices, generator=generator), dim=0).to(features)
    t = torch.linspace(0, 3, knots).to(features)
    normal = (-t.square() / 2).exp()
    angles = (features @ directions).unsqueeze(-1) * t  # [B, slices, knots]
    distance = (angles.cos().mean(dim=0) - normal).square() + angles.sin().mean(dim=0).square()  # [slices, knots]
    return 2 * torch.trapezoid(distance * normal, t, dim=-1).mean()


@dataclass(frozen=True)
class CollapseSigns:
    """How much the representation still tells inputs apart.

    target_std: per-dimension standard deviation over inputs of the layer-normed token at one position, averaged; 0
    when all inputs look alike, also when tokens still differ by position (total collapse reads 0 here, healthy runs
    .5 to 1). rankme: effective number of dimensions of these differences (Garrido et al. 2023); cosine: mean cosine
    between the pooled representations of two inputs, 1 when they all point the same way.
    """

    target_std: float
    rankme: float
    cosine: float

    def warning(self, stream: str = "") -> str:
        """What looks bad about a stream, in words; empty where nothing does."""
        troubles = []
        if self.target_std < 0.1:
            troubles.append(f"targets hardly differ between inputs (std {self.target_std:.3f}, healthy above 0.3)")
        if self.rankme < 4:
            troubles.append(f"they vary in {self.rankme:.1f} dimensions only")
        if self.cosine > 0.99:
            troubles.append(f"all inputs point the same way (mean cosine {self.cosine:.3f})")
        if not troubles:
            return ""
        advice = "try a smaller optim.peak_lr, a momentum nearer 1, or loss.regulariser=vicreg"
        if not stream:  # encoders of streams may give their last layer alone
            advice += ", or model.target_layers=0"
        return f"signs of collapse{f' of {stream}' if stream else ''}: {'; '.join(troubles)}; {advice}"


def by_name(streams: Mapping[str, CollapseSigns]) -> dict[str, float]:
    """Signs of streams as numbers by name, those of all but the first with the stream's name before them."""
    return {
        f"{stream}_{key}" if number else key: value
        for number, (stream, signs) in enumerate(streams.items())
        for key, value in asdict(signs).items()
    }


def collapse_warning(streams: Mapping[str, CollapseSigns]) -> str:
    """What looks bad about any stream, in words; empty where nothing does."""
    return ". ".join(words for stream, signs in streams.items() if (words := signs.warning(stream)))


@torch.no_grad()
def collapse_signs(tokens: Tensor) -> CollapseSigns:
    """Signs of collapse of encoded inputs: [B, N, D], B of 2 or more."""
    # In double precision, as the mean of equal numbers is rounded otherwise, and rankme would count what is left.
    tokens = F.layer_norm(tokens.float(), tokens.shape[-1:]).double()
    centred = tokens - tokens.mean(dim=0)
    pooled = F.normalize(tokens.mean(dim=1), dim=-1)
    batch = len(pooled)
    cosine = (pooled.sum(dim=0).square().sum() - batch) / (batch * (batch - 1))
    deviation = (centred.square().sum(dim=0) / (batch - 1)).sqrt().mean()
    return CollapseSigns(float(deviation), rankme(centred.flatten(0, 1)), float(cosine))


@torch.no_grad()
def rankme(features: Tensor) -> float:
    """Exponential of the entropy of the singular values: [n, D] -> 1..D (Garrido et al. 2023, eq. 1).

    Not a number for features that are not finite; the loss of the next step is not either, and says so.
    """
    if not torch.isfinite(features).all():
        return math.nan
    spectrum = torch.linalg.eigvalsh(features.double().T @ features.double()).clamp_min(0).sqrt()
    shares = spectrum / spectrum.sum().clamp_min(1e-12) + 1e-12
    return float((-(shares * shares.log()).sum()).exp())
