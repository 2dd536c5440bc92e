"""The masks of a step as a pure function of (seed, step, sample)."""

import math
from itertools import groupby
from typing import Any

from jepa.data.order import Order, seeded
from jepa.masking import Masks
from jepa.masking.groups import GroupGenerator
from jepa.modality import Modality


def step_masks(modality: Modality[Any], order: Order, step: int) -> list[Masks]:
    """Masks of this process's samples at a step: those of the global batch, which no number of processes changes.

    Only the groups that hold a sample of this process are drawn. If groups differ in their numbers of tokens, each part
    of the masks lies in one group.
    """
    groups = modality.mask_groups
    if groups is None or groups.size >= order.batch_size:
        return [masks[order.rows] for masks in group_masks(modality, order.seed, step, order.batch_size)]
    drawn = {
        group: group_masks(modality, order.seed, step, order.batch_size, group)
        for group in sorted({row // groups.size for row in order.rows})
    }
    parts = [
        [masks[[row % groups.size for row in rows]] for masks in drawn[rows[0] // groups.size]]
        for rows in _parts(order, groups.size, groups.equal)
    ]
    join = Masks.concatenate if groups.equal else Masks.filled_up
    return [join(sets) for sets in zip(*parts, strict=True)]


def group_masks(modality: Modality[Any], seed: int, step: int, batch_size: int, group: int = 0) -> list[Masks]:
    """The masks of one group of the global batch, or of all of it if the modality has no groups."""
    groups, key = modality.mask_groups, ("masks", seed, step)
    if groups is None or groups.size >= batch_size:
        return modality.sample_masks(batch_size, seeded(*key))
    generator = GroupGenerator()
    generator.set_state(seeded(*key).get_state())
    generator.own = seeded(*key, group)
    return modality.sample_masks(min(groups.size, batch_size - group * groups.size), generator)


def _parts(order: Order, size: int, equal: bool) -> list[list[int]]:
    """Rows of this process in parts that each lie in one group. Unless groups are equal, parts are equally long."""
    rows = order.rows
    if equal:
        return [list(part) for _, part in groupby(rows, key=lambda row: row // size)]
    length = math.gcd(len(rows) // order.accumulate, size)
    return [rows[first : first + length] for first in range(0, len(rows), length)]
