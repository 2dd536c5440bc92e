"""Regularisers of the pooled contexts against collapse: VICReg, SIGReg and VISReg."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

_KNOTS = 17  # of the trapezoid rule from 0 to 3


def vicreg(features: Tensor) -> Tensor:
    """Variance and covariance terms with weights 1 and 1/25: [B, D] -> scalar (Bardes et al. 2022, eq. 1-4).

    Departs from VICReg: the prediction loss and `LossConfig.invariance` replace its invariance term.
    """
    centred = features - features.mean(dim=0)
    deviation = (centred.square().sum(dim=0) / (len(features) - 1) + 1e-4).sqrt()
    covariance = centred.T @ centred / (len(features) - 1)
    off_diagonal = covariance - torch.diag(covariance.diagonal())
    return F.relu(1 - deviation).mean() + off_diagonal.square().sum() / features.shape[1] / 25


def sigreg(features: Tensor, generator: Generator, slices: int = 256) -> Tensor:
    """Distance of random projections from a standard normal: [B, D] -> scalar (Balestriero & LeCun 2025, LeJEPA).

    Epps-Pulley statistic of each projection: the weighted squared distance between the empirical characteristic
    function and exp(-t^2 / 2), integrated by the trapezoid rule over |t| <= 3. Departs from LeJEPA: not multiplied by
    the number of samples, so that its weight does not depend on the batch size.
    """
    directions = random_directions(features, slices, generator)
    t = torch.linspace(0, 3, _KNOTS, device=features.device, dtype=features.dtype)
    normal = (-t.square() / 2).exp()
    angles = (features @ directions).unsqueeze(-1) * t  # [B, slices, knots]
    distance = (angles.cos().mean(dim=0) - normal).square() + angles.sin().mean(dim=0).square()  # [slices, knots]
    return 2 * torch.trapezoid(distance * normal, t, dim=-1).mean()


def visreg(features: Tensor, generator: Generator, slices: int = 256) -> Tensor:
    """Distance of mean, scale and shape from a standard normal: [B, D] -> scalar (Wu et al. 2026, VISReg).

    Squared mean and (1 - standard deviation)^2 of each dimension, and the squared Wasserstein distance of random
    projections of the standardised features from a normal: sorted values against its quantiles (i - 1/2) / B. The
    shape ignores the scale, so that the gradient of the scale stays alive when features collapse. Dimensions that
    vary by less than .01 are divided by .01, which bounds the gradient of the shape.
    """
    mean = features.mean(dim=0)
    centred = features - mean
    deviation = (centred.square().mean(dim=0) + 1e-8).sqrt()
    projected = (centred / deviation.clamp_min(0.01)) @ random_directions(features, slices, generator)
    ranks = torch.arange(len(features), device=features.device, dtype=features.dtype)
    quantiles = torch.special.ndtri((ranks + 0.5) / len(features))
    shape: Tensor = (projected.sort(dim=0).values - quantiles.unsqueeze(1)).square().mean()
    return mean.square().mean() + (1 - deviation).square().mean() + shape


def random_directions(features: Tensor, slices: int, generator: Generator) -> Tensor:
    """Random unit vectors for features [B, D], in their type and on their device: [D, slices]."""
    drawn = torch.randn(features.shape[1], slices, generator=generator, pin_memory=features.is_cuda)
    return F.normalize(drawn.to(features.device, non_blocking=True), dim=0).to(features.dtype)
