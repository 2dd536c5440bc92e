"""How far apart the views of a sample lie."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Vectors = Mapping[str, Tensor]  # [B, D] by stream, or [B, P] projected


def views_distance(whole: Sequence[Vectors], local: Sequence[Vectors]) -> Tensor:
    """Mean squared distance of every view to the mean of the whole views -> scalar (Balestriero & LeCun 2025, LeJEPA).

    whole: one vector per set of masks. local: those of smaller views. Gradients flow through both sides. Streams are
    compared separately.
    """
    distances = []
    for stream in dict.fromkeys(name for of_view in whole for name in of_view):
        first = torch.stack([of_view[stream] for of_view in whole if stream in of_view]).float()
        every = torch.cat([first, *(of_view[stream].unsqueeze(0) for of_view in local if stream in of_view)])
        distances.append((every - first.mean(dim=0)).square().mean())
    return torch.stack(distances).mean()
