"""Signs of collapse: how well representations still distinguish inputs."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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

    Not a number for features that are not finite; the loss of the next step is not either, and says so.
    """
    if not torch.isfinite(features).all():
        return math.nan
    spectrum = torch.linalg.eigvalsh(features.double().T @ features.double()).clamp_min(0).sqrt()
    shares = spectrum / spectrum.sum().clamp_min(1e-12) + 1e-12
    return float((-(shares * shares.log()).sum()).exp())
