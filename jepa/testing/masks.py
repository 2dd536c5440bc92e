"""Masks: well formed, a function of the generator, using every token, independent of the batch size."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from jepa.data import seeded
from jepa.data.masks import group_masks
from jepa.masking import Masks, flaw_of
from jepa.modality import Modality
from jepa.testing.compare import global_seed, same

_DRAWS, _FEW, _MANY = 150, 2, 32  # number of batches; small and large batch size
_SIGMAS, _SHARE = 6.0, 0.1  # a difference must exceed both to be reported: standard errors, and a share


def check_masks(modality: Modality[Any]) -> Iterator[str]:
    """Check single batches, then statistics over many batches if each is well formed."""
    sets = modality.sample_masks(4, seeded("masks", 0))
    if not (isinstance(sets, list) and sets and all(isinstance(masks, Masks) for masks in sets)):
        yield "sample_masks must return a list of at least one jepa.masking.Masks"
        return
    if len(sets) % modality.views:
        yield f"sample_masks returns {len(sets)} sets of masks, which do not divide evenly among {modality.views} views"
    batches = (modality.sample_masks(4, seeded("masks", draw)) for draw in range(8))
    flaws = (flaw_of(masks, 4, len(modality.positions)) for batch in batches for masks in batch)
    if flaw := next(filter(None, flaws), ""):
        yield f"sample_masks returns {flaw}"
        return
    with global_seed(1):
        again = modality.sample_masks(4, seeded("masks", 0))
    if not same([(one.context, one.target) for one in sets], [(one.context, one.target) for one in again]):
        hint = "draw all random numbers from the generator that it receives"
        yield f"sample_masks returns other masks for the same generator; {hint}"
        return
    yield from _check_groups(modality)
    yield from _check_use(modality)


def _check_groups(modality: Modality[Any]) -> Iterator[str]:
    """Check that the groups of a large batch have masks of their own, of one shape if they claim so."""
    groups = modality.mask_groups
    if groups is None:
        return
    for step in range(8):
        drawn = [group_masks(modality, 0, step, 2 * groups.size, group) for group in range(2)]
        first, second = ([(one.context, one.target) for one in sets] for sets in drawn)
        shapes = [[[index.shape for index in one] for one in sets] for sets in (first, second)]
        if groups.equal and shapes[0] != shapes[1]:
            yield "mask_groups says that groups are equal, but sample_masks returns other shapes for another group"
            return
        all_alike = not any(bool((index != index[:1]).any()) for one in first for index in one)  # as of causal masks
        if all_alike or not same(first, second):
            return
    yield "sample_masks returns the same masks for every group: draw from jepa.masking.own_generator(generator)"


def _check_use(modality: Modality[Any]) -> Iterator[str]:
    (context, target), (context_of_many, _) = _use(modality, _FEW), _use(modality, _MANY)  # [draws, N] each
    unused = ((context + target + context_of_many).sum(dim=0) == 0).nonzero().flatten().tolist()
    if unused:
        shown = ", ".join(map(str, unused[:6])) + (", ..." if len(unused) > 6 else "")
        yield (
            f"sample_masks never uses {len(unused)} of {context.shape[1]} tokens ({shown}), neither as context nor as "
            "target: draw from all placements that fit, including the last one"
        )
    if not context.any():
        return
    change = context_of_many.mean(dim=0) - context.mean(dim=0)
    noise = ((context.var(dim=0) + context_of_many.var(dim=0)) / _DRAWS).sqrt()
    wrong = (change.abs() > _SIGMAS * noise) & (change.abs() > _SHARE)
    if wrong.any():
        token = int((change.abs() * wrong).argmax())
        few, many = float(context[:, token].mean()), float(context_of_many[:, token].mean())
        yield (
            f"sample_masks depends on the batch size: token {token} is context in {few:.0%} of the samples of batches "
            f"of {_FEW}, in {many:.0%} for batches of {_MANY}; do not cut all samples to the shortest of the batch"
        )


def _use(modality: Modality[Any], batch_size: int) -> tuple[Tensor, Tensor]:
    """How often each token is context, and target, in each batch: shares of its samples and sets, [draws, N] each."""
    tokens = len(modality.positions)
    uses = torch.zeros(2, _DRAWS, tokens)
    for draw in range(_DRAWS):
        sets = modality.sample_masks(batch_size, seeded("use", batch_size, draw))
        for masks in sets:
            for kind, indices in enumerate((masks.context, masks.target)):
                uses[kind, draw] += indices.flatten().bincount(minlength=tokens) / (batch_size * len(sets))
    return uses[0], uses[1]
