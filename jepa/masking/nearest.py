"""Distances between context and target tokens."""

import torch
from torch import Tensor

from jepa.masking.masks import Masks


@torch.no_grad()
def nearest_target(masks: Masks, positions: Tensor) -> Tensor:
    """Distance of every context token to the nearest target token of its sample, in tokens -> [B, Kc].

    positions: coordinates of all tokens [N, A]. A sample without valid targets has infinite distances. One sample at a
    time, as the distances of a whole batch of long clips would take gigabytes.
    """
    places = positions[masks.target.flatten(1)]  # [B, M * Kt, A]
    if masks.valid_target is not None:
        places = places.masked_fill(~masks.valid_target.flatten(1).unsqueeze(-1), torch.inf)
    of_samples = [
        torch.cdist(context, target, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
        for context, target in zip(positions[masks.context], places, strict=True)
    ]
    return torch.stack(of_samples)
