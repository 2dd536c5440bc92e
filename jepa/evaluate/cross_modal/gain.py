"""How much the second stream of a sample helps to predict hidden tokens of its first: the same tokens, three contexts.

With the sample's own second stream, without one, and with that of another sample that says something else: what helps
only because there is more context helps from another sample too.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import Dataset, default_collate

from jepa.data import seeded, to_device
from jepa.encoder import take
from jepa.evaluate.reading import batches, readable
from jepa.loss import sample_distances
from jepa.masking import Masks
from jepa.matching import MatchedModality
from jepa.modality import BadSampleError, Samples
from jepa.model import JEPA, Pair
from jepa.training.config import Config

_AT_ONCE = 32  # samples of one draw of masks, so that masks depend on nothing else
_NOTHING = dict.fromkeys(("own", "without", "other"), torch.empty(0, dtype=torch.float64))  # no sample can be read


class _First(Dataset[Any]):
    """Of each sample a view with the first of its second streams, and what that says."""

    def __init__(self, modality: MatchedModality[Any], samples: Samples, indices: Sequence[int]) -> None:
        self.modality, self.samples, self.indices = modality, samples, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Any:
        try:
            inputs = self.samples[self.indices[place]].inputs
            return self.modality.matches(inputs)[0], self.modality.said(inputs)[0]
        except BadSampleError as error:
            return error


def _collate(items: Sequence[Any]) -> tuple[Any, list[str], list[tuple[str, str]]]:
    good, bad = readable(items)
    views = default_collate([view for view, _ in good]) if good else None
    return views, [said for _, said in good], bad


def others(said: Sequence[str]) -> Tensor:
    """For each sample the next one, in a circle, that says something else; -1 where none does: int64 [B]."""
    count = len(said)
    found = [
        next((other % count for other in range(place + 1, place + count) if said[other % count] != said[place]), -1)
        for place in range(count)
    ]
    return torch.tensor(found)


@torch.inference_mode()
def gain(
    model: JEPA,
    modality: MatchedModality[Any],
    config: Config[Any, Any],
    samples: Samples,
    indices: Sequence[int],
    on_bad: Callable[[list[tuple[str, str]]], None],
) -> dict[str, Any]:
    """Errors of predictions by the run's own loss, and their differences; None for what no sample tells."""
    device = model.context_encoder.device
    parts = []
    for number, (views, said) in enumerate(
        _batches(modality, samples, indices, config.compute.loaders(device), on_bad)
    ):
        drawn = modality.gain_masks(len(said), seeded("gain", number))
        assert drawn is not None, "the caller asks whether there are any"
        with torch.autocast(device.type, torch.bfloat16, enabled=config.compute.precision == "bf16"):
            with_it, without_it = (masks.to(device) for masks in drawn)
            parts.append(
                _errors(model, modality, config, to_device(views, device), (with_it, without_it), others(said))
            )
    errors = {name: torch.cat([part[name] for part in parts]).double() for name in parts[0]} if parts else _NOTHING
    means = {name: values.nanmean() for name, values in errors.items()}
    return {
        "distance": config.loss.distance,
        "error": {name: float(mean) if mean.isfinite() else None for name, mean in means.items()},
        "without_minus_own": _difference(errors["without"], errors["own"]),
        "without_minus_other": _difference(errors["without"], errors["other"]),
    }


def _batches(
    modality: MatchedModality[Any],
    samples: Samples,
    indices: Sequence[int],
    loaders: int,
    on_bad: Callable[[list[tuple[str, str]]], None],
) -> Iterator[tuple[Any, list[str]]]:
    for views, said, bad in batches(_First(modality, samples, indices), _AT_ONCE, loaders, _collate):
        on_bad(bad)
        if said:
            yield views, said


def _errors(
    model: JEPA,
    modality: MatchedModality[Any],
    config: Config[Any, Any],
    views: Any,
    masks: tuple[Masks, Masks],
    other: Tensor,
) -> dict[str, Tensor]:
    """Errors of each sample by its context; of those without another sample not a number: [B] each."""
    with_it, without_it = masks
    encoder, present = model.context_encoder, model.context_encoder.present(views)
    partner = other.clamp_min(0).to(with_it.context.device)
    theirs = tree_map(lambda leaf: leaf[partner], views)
    whole = model.targets(views)  # [B, N, L, D]

    def error(context: Tensor, seen: Masks, there: Tensor | None) -> Tensor:
        target = take(whole.flatten(2), seen.target).unflatten(-1, whole.shape[-2:])
        shown = None if present is None else present.gather(1, seen.target.flatten(1)).view(seen.target.shape)
        return sample_distances(Pair(model.guess(context, seen, present=there), target, shown), config.loss).cpu()

    # Streams are encoded each by itself, so contexts of two samples can be joined from their parts.
    second = torch.zeros(len(modality.positions), dtype=torch.bool)
    second[modality.streams[1].tokens] = True
    second = second.to(partner.device)
    own = encoder(views, with_it.context, with_it.parts)
    mixed = torch.where(second[with_it.context].unsqueeze(-1), encoder(theirs, with_it.context, with_it.parts), own)
    there = None if present is None else torch.where(second, present[partner], present)
    return {
        "own": error(own, with_it, present),
        "without": error(encoder(views, without_it.context, without_it.parts), without_it, present),
        "other": error(mixed, with_it, there).masked_fill(other < 0, torch.nan),
    }


def _difference(one: Tensor, other: Tensor) -> dict[str, Any]:
    """Mean over samples of how much lower the other error is, and its standard error."""
    paired = one - other
    paired = paired[paired.isfinite()]
    count = len(paired)
    return {
        "mean": float(paired.mean()) if count else None,
        "standard_error": float(paired.std() / math.sqrt(count)) if count > 1 else None,
        "samples": count,
    }
