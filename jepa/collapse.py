"""Signs of collapse: how well representations still distinguish inputs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 8  # samples; fewer vary in so few dimensions that it would look like a collapse


@dataclass(frozen=True)
class CollapseSigns:
    """How well representations still distinguish inputs.

    target_std: standard deviation over inputs of the layer-normed token at one position, averaged over dimensions and
    positions: 0 after total collapse, even if tokens still differ by position, and .5 to 1 in healthy runs. rankme:
    effective number of dimensions of these differences (Garrido et al. 2023). cosine: mean cosine between the pooled
    representations of two inputs, 1 if all are parallel.
    """

    target_std: float
    rankme: float
    cosine: float

    def warning(self, stream: str = "", samples: int = FEW, remedies: Sequence[str] = ()) -> str:
        """A warning about a stream; empty if it looks healthy.

        samples: measured ones; few vary in few dimensions. remedies: what to try (`Config.remedies`).
        """
        problems = []
        if self.target_std < 0.1:
            problems.append(
                f"representations barely differ between inputs (std {self.target_std:.3f}, healthy above 0.3)"
            )
        if self.rankme < 4 and samples >= FEW:
            problems.append(f"they vary in only {self.rankme:.1f} dimensions")
        if self.cosine > 0.99:
            problems.append(f"representations of all inputs are nearly parallel (mean cosine {self.cosine:.3f})")
        if not problems:
            return ""
        advice = f"; try {', or '.join(remedies)}" if remedies else ""
        return f"signs of collapse{f' of {stream}' if stream else ''}: {'; '.join(problems)}{advice}"


def flat_signs(streams: Mapping[str, CollapseSigns]) -> dict[str, float]:
    """Signs of all streams as numbers by name; all but the first stream prefix its name."""
    return {
        f"{stream}_{key}" if number else key: value
        for number, (stream, signs) in enumerate(streams.items())
        for key, value in asdict(signs).items()
    }


def collapse_warning(streams: Mapping[str, CollapseSigns], samples: int, remedies: Sequence[str]) -> str:
    """Warnings about all streams; empty if they look healthy."""
    return ". ".join(filter(None, (signs.warning(stream, samples, remedies) for stream, signs in streams.items())))


@torch.no_grad()
def collapse_signs(tokens: Tensor) -> CollapseSigns:
    """Signs of collapse of encoded inputs: [B, N, D], B of 2 or more."""
    # In double precision: the rounded mean of equal numbers would leave differences, which rankme would count.
    tokens = tokens.cpu() if tokens.device.type == "mps" else tokens  # MPS has no double precision
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

    NaN for features that are not finite; the loss of the next step is then not finite either and stops the run.
    """
    if not torch.isfinite(features).all():
        return math.nan
    spectrum = torch.linalg.eigvalsh(features.double().T @ features.double()).clamp_min(0).sqrt()
    shares = spectrum / spectrum.sum().clamp_min(1e-12) + 1e-12
    return float((-(shares * shares.log()).sum()).exp())
