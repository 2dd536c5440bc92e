"""Several views, and several sets of masks, as one larger batch."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from jepa.masking.masks import Masks


def views_together(views: Iterable[Any]) -> Any:
    """Several views as one larger batch: n times [B, ...] -> [n * B, ...]."""
    return tree_map(lambda *leaves: torch.cat(leaves), *views)


def sets_together(
    views: Sequence[Any], sets: Sequence[Masks], keys: Sequence[Hashable]
) -> list[tuple[list[int], Any, Masks]]:
    """Join the sets of masks with equal keys, which have one shape: (numbers of the sets, inputs, masks) of each batch.

    Set i applies to view i mod V of the V views [B, ...].
    """
    groups: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    joined = []
    for numbers in groups.values():
        together, inputs = sets[numbers[0]], views[numbers[0] % len(views)]
        if len(numbers) > 1:
            together = Masks.concatenate([sets[number] for number in numbers])
            inputs = views_together(views[number % len(views)] for number in numbers)
        joined.append((numbers, inputs, together))
    return joined
