"""Masks: well formed, a function of the generator, no token left out, and no matter how many samples there are."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from jepa.data import seeded
from jepa.masking import Masks, flaw_of
from jepa.modality import Modality
from jepa.testing.compare import global_seed

_DRAWS, _FEW, _MANY = 150, 2, 32  # batches that are drawn, and samples of the small and the large ones
_SIGMAS, _SHARE = 6.0, 0.1  # a difference that no luck explains, and that matters


def check_masks(modality: Modality[Any]) -> Iterator[str]:
    """All of it, on many batches; properties of many are looked at only where each is well formed."""
    sets = modality.sample_masks(4, seeded("masks", 0))
    if not (isinstance(sets, list) and sets and all(isinstance(masks, Masks) for masks in sets)):
        yield "sample_masks has to give a list of jepa.masking.Masks, at least one"
        return
    if len(sets) % modality.views:
        yield f"sample_masks gives {len(sets)} sets, which cannot be laid over {modality.views} views in turn"
    flaw = next((flaw for draw in range(8) if (flaw := _flaw(modality, draw))), "")
    if flaw:
        yield f"sample_masks gives {flaw}"
        return
    with global_seed(1):
        again = modality.sample_masks(4, seeded("masks", 0))
    if not _alike(sets, again):
        yield (
            "sample_masks gives other masks for the same generator; "
            "all that is random has to come from the generator that it is given"
        )
        return
    yield from _check_use(modality)


def _flaw(modality: Modality[Any], draw: int) -> str:
    sets = modality.sample_masks(4, seeded("masks", draw))
    return next((flaw for masks in sets if (flaw := flaw_of(masks, 4, len(modality.positions)))), "")


def _alike(sets: list[Masks], others: list[Masks]) -> bool:
    return len(sets) == len(others) and all(
        torch.equal(one.context, other.context) and torch.equal(one.target, other.target)
        for one, other in zip(sets, others, strict=True)
    )


def _check_use(modality: Modality[Any]) -> Iterator[str]:
    (seen, hidden), (seen_of_many, _) = _use(modality, _FEW), _use(modality, _MANY)  # [draws, N] each
    unused = ((seen + hidden + seen_of_many).sum(dim=0) == 0).nonzero().flatten().tolist()
    if unused:
        shown = ", ".join(map(str, unused[:6])) + (", ..." if len(unused) > 6 else "")
        yield (
            f"sample_masks never uses {len(unused)} of {seen.shape[1]} tokens ({shown}), neither as context nor as "
            "target: draw from all placements that fit, the last one too"
        )
    if not seen.any():
        return
    change = seen_of_many.mean(dim=0) - seen.mean(dim=0)
    noise = ((seen.var(dim=0) + seen_of_many.var(dim=0)) / _DRAWS).sqrt()
    wrong = (change.abs() > _SIGMAS * noise) & (change.abs() > _SHARE)
    if wrong.any():
        token = int((change.abs() * wrong).argmax())
        few, many = float(seen[:, token].mean()), float(seen_of_many[:, token].mean())
        yield (
            f"sample_masks depends on the size of the batch: token {token} is context in {few:.0%} of samples where "
            f"{_FEW} are drawn at once, in {many:.0%} where {_MANY} are; do not cut all to the shortest of the batch"
        )


def _use(modality: Modality[Any], batch_size: int) -> tuple[Tensor, Tensor]:
    """How often each token is context and is target, as a share of samples and sets, of every draw: [draws, N]."""
    tokens = len(modality.positions)
    uses = torch.zeros(2, _DRAWS, tokens)
    for draw in range(_DRAWS):
        sets = modality.sample_masks(batch_size, seeded("use", batch_size, draw))
        for masks in sets:
            for kind, indices in enumerate((masks.context, masks.target)):
                uses[kind, draw] += indices.flatten().bincount(minlength=tokens) / (batch_size * len(sets))
    return uses[0], uses[1]
