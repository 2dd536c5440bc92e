"""The contrast of two matching streams: their vectors, its learned scale and shift, and its loss."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa.distributed import gather_rows, local, own_rows

Contrast = Literal["none", "infonce", "sigmoid"]


class ContrastPair(NamedTuple):
    """Matching vectors of two streams; their logits are scale * cosine + shift."""

    streams: tuple[Tensor, Tensor]  # [B, D] each
    scale: Tensor  # [1], the inverse temperature
    shift: Tensor  # [1]


class ContrastScale(nn.Module):
    """Learned inverse temperature and shift of a contrast, initialised as in the papers of each contrast.

    The inverse temperature stays at most 100 (Radford et al. 2021, sec. 2.5).
    """

    def __init__(self, contrast: Contrast) -> None:
        super().__init__()
        scale, shift = (10.0, -10.0) if contrast == "sigmoid" else (1 / 0.07, 0.0)
        self.log_scale = nn.Parameter(torch.tensor([math.log(scale)]))
        self.shift = nn.Parameter(torch.tensor([shift]), requires_grad=contrast == "sigmoid")

    def forward(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, [1] each."""
        # A copy, not the parameter: an output without a node in the graph looks unused to DDP, which then refuses its
        # gradient, and FSDP would add another hook to it at every step.
        return self.log_scale.exp(), self.shift.clone()

    def pair(
        self, streams: Sequence[str], vectors: Sequence[Mapping[str, Tensor]], kept: Sequence[int]
    ) -> ContrastPair:
        """For each of the two streams, the vector [B, D] from the set of masks that keeps most of it in the context.

        vectors: by stream, of each set. kept: number of context tokens of each set.
        """
        chosen = []
        for stream in streams:
            sets = [number for number, of_set in enumerate(vectors) if stream in of_set]
            most = max(sets, key=lambda number: (len(vectors[number]) == 1, kept[number]))
            chosen.append(vectors[most][stream])
        first, second = chosen
        return ContrastPair((first, second), *self())

    @torch.no_grad()
    def clamp(self) -> None:
        """Bound the scale after a step; a bound inside the loss would leave no gradient to come back from it."""
        local(self.log_scale).clamp_(max=math.log(100))


def contrast_loss(pair: ContrastPair, kind: Contrast) -> Tensor:
    """Contrastive loss of two matching streams: this process's b samples against the global batch of B -> scalar.

    Its mean over processes is the loss of the global batch. No process holds the scores of all B x B pairs.
    infonce: cross-entropy of the match among all pairs, in both directions (van den Oord et al. 2018; Radford et al.
    2021). sigmoid: binary cross-entropy of every pair, summed over the pairs of a sample (Zhai et al. 2023).
    """
    first, second = (F.normalize(gather_rows(rows.float()), dim=-1) for rows in pair.streams)
    own = own_rows(len(pair.streams[0]))
    match = torch.arange(own.start, own.stop, device=first.device)
    logits = pair.scale * first[own] @ second.T + pair.shift  # [b, B]
    if kind == "infonce":
        reverse = pair.scale * second[own] @ first.T + pair.shift
        return (F.cross_entropy(logits, match) + F.cross_entropy(reverse, match)) / 2
    signs = 2 * F.one_hot(match, len(second)) - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)
