"""Cross-modal gain: how much the second stream of a sample helps to predict hidden tokens of its first.

The same tokens are predicted from three contexts: with the sample's own second stream, without one, and with the second
stream of another sample. The last one shows how much a longer context alone helps.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from jepa.data import seeded, to_device
from jepa.encoder import gather_tokens
from jepa.evaluate.cross_modal.samples import PairDataset, collate_pairs
from jepa.evaluate.reading import batches
from jepa.loss import LossConfig, distances
from jepa.masking import Masks
from jepa.matching import MatchedModality
from jepa.modality import Samples
from jepa.model import JEPA, Pair
from jepa.training.config import Config

_AT_ONCE = 32  # samples that share one draw of masks; constant, so that no setting changes the masks
_NO_ERRORS = dict.fromkeys(("own", "without", "other"), torch.empty(0, dtype=torch.float64))  # if no sample can be read


def other_samples(descriptions: Sequence[str]) -> Tensor:
    """The next sample, cyclically, whose description differs; -1 if there is none: int64 [B]."""
    count = len(descriptions)
    following = ([other % count for other in range(index + 1, index + count)] for index in range(count))
    different = zip(following, descriptions, strict=True)
    return torch.tensor([next((i for i in later if descriptions[i] != own), -1) for later, own in different])


@torch.inference_mode()
def cross_modal_gain(
    model: JEPA,
    modality: MatchedModality[Any],
    config: Config[Any, Any],
    samples: Samples,
    indices: Sequence[int],
    on_bad: Callable[[list[tuple[str, str]]], None],
) -> dict[str, Any]:
    """The `gain` section: prediction errors by the run's own loss and their differences; None if there is no sample."""
    device = model.context_encoder.device
    parts: list[dict[str, Tensor]] = []
    pairs = PairDataset(modality, samples, indices, (), first_only=True)
    for batch in batches(pairs, _AT_ONCE, config.compute.loaders(device), collate_pairs):
        on_bad(batch.bad)
        if not batch.counts:
            continue
        starts = [0, *accumulate(batch.counts)][:-1]
        descriptions = [batch.descriptions[start] for start in starts]
        drawn = modality.gain_masks(len(descriptions), seeded("gain", len(parts)))
        assert drawn is not None, "the caller checks that there are masks"
        with torch.autocast(device.type, torch.bfloat16, enabled=config.compute.uses_bf16(device.type)):
            masks = drawn[0].to(device), drawn[1].to(device)
            others = other_samples(descriptions)
            parts.append(_errors(model, modality, config, to_device(batch.first, device), masks, others))
    errors = {name: torch.cat([part[name] for part in parts]).double() for name in parts[0]} if parts else _NO_ERRORS
    means = {name: values.nanmean() for name, values in errors.items()}
    return {
        "distance": config.loss.distance,
        "error": {name: float(mean) if mean.isfinite() else None for name, mean in means.items()},
        "without_minus_own": _difference(errors["without"], errors["own"]),
        "without_minus_other": _difference(errors["without"], errors["other"]),
    }


def _errors(
    model: JEPA,
    modality: MatchedModality[Any],
    config: Config[Any, Any],
    views: Any,
    masks: tuple[Masks, Masks],
    others: Tensor,
) -> dict[str, Tensor]:
    """Prediction errors of each sample by context; NaN for samples without another sample: [B] each."""
    masks_with, masks_without = masks
    encoder, valid = model.context_encoder, model.context_encoder.valid(views)
    partner = others.clamp_min(0).to(masks_with.context.device)
    other_views = tree_map(lambda leaf: leaf[partner], views)
    targets = model.targets(views)  # [B, N, L, D]

    def error(context: Tensor, masks: Masks, valid: Tensor | None) -> Tensor:
        masks = masks.bind(valid)
        target = gather_tokens(targets.flatten(2), masks.target).unflatten(-1, targets.shape[-2:])
        return sample_distances(Pair(model.predict(context, masks), target, masks.valid_target), config.loss).cpu()

    # Each stream is encoded independently, so the streams of two samples can be joined into one context.
    second = torch.isin(torch.arange(len(modality.positions)), modality.streams[1].tokens).to(partner.device)
    own = encoder(views, masks_with)
    mixed = torch.where(second[masks_with.context].unsqueeze(-1), encoder(other_views, masks_with), own)
    mixed_valid = None if valid is None else torch.where(second, valid[partner], valid)
    return {
        "own": error(own, masks_with, valid),
        "without": error(encoder(views, masks_without), masks_without, valid),
        "other": error(mixed, masks_with, mixed_valid).masked_fill(others < 0, torch.nan),
    }


def _difference(one: Tensor, other: Tensor) -> dict[str, Any]:
    """Mean of one error minus the other over samples, and its standard error."""
    paired = one - other
    paired = paired[paired.isfinite()]
    count = len(paired)
    return {
        "mean": float(paired.mean()) if count else None,
        "standard_error": float(paired.std() / math.sqrt(count)) if count > 1 else None,
        "samples": count,
    }


def sample_distances(pair: Pair, config: LossConfig) -> Tensor:
    """Prediction loss of each sample, for one set of masks and latent targets -> [B]; NaN without valid targets."""
    of_token = distances(pair, config, config.normalise_prediction, "none").flatten(3).mean(dim=3)  # [B, M, Kt]
    valid = torch.ones_like(of_token) if pair.valid is None else pair.valid.to(of_token)
    return (of_token * valid).flatten(1).sum(dim=1) / valid.flatten(1).sum(dim=1)
