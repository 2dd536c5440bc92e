"""Regularisers of the pooled contexts against collapse: VICReg and SIGReg."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def vicreg(features: Tensor) -> Tensor:
    """Variance and covariance terms with weights 1 and 1/25: [B, D] -> scalar (Bardes et al. 2022, eq. 1-4).

    Departs from VICReg: the prediction loss and `LossConfig.invariance` replace its invariance term.
    """
    centred = features - features.mean(dim=0)
    deviation = (centred.square().sum(dim=0) / (len(features) - 1) + 1e-4).sqrt()
    covariance = centred.T @ centred / (len(features) - 1)
    off_diagonal = covariance - torch.diag(covariance.diagonal())
    return F.relu(1 - deviation).mean() + off_diagonal.square().sum() / features.shape[1] / 25


def sigreg(features: Tensor, generator: Generator, slices: int = 256, knots: int = 17) -> Tensor:
    """Distance of random projections from a standard normal: [B, D] -> scalar (Balestriero & LeCun 2025, LeJEPA).

    Epps-Pulley statistic of each projection: the weighted squared distance between the empirical characteristic
    function and exp(-t^2 / 2), integrated by the trapezoid rule over |t| <= 3. Departs from LeJEPA: not multiplied by
    the number of samples, so that its weight does not depend on the batch size.
    """
    directions = F.normalize(torch.randn(features.shape[1], slices, generator=generator), dim=0).to(features)
    t = torch.linspace(0, 3, knots).to(features)
    normal = (-t.square() / 2).exp()
    angles = (features @ directions).unsqueeze(-1) * t  # [B, slices, knots]
    distance = (angles.cos().mean(dim=0) - normal).square() + angles.sin().mean(dim=0).square()  # [slices, knots]
    return 2 * torch.trapezoid(distance * normal, t, dim=-1).mean()
