"""Masks of a batch drawn in groups of samples, so that a process draws only the groups that it needs.

All groups of a step share what a strategy draws once per batch, such as the size of blocks: processes with different
sizes would wait for each other. Everything else comes from a generator of the group's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Generator

from jepa.masking.configs import BlockMaskConfig, FunctionMaskConfig, Strategy, TubeMaskConfig

SIZE = 256  # samples of a group; smaller batches are drawn as a whole


@dataclass(frozen=True)
class MaskGroups:
    """How the batch of a step divides into groups whose masks are drawn separately.

    size: consecutive samples in a group. equal: all groups of a step have equally many context and target tokens;
    otherwise each forward pass holds samples of one group alone.
    """

    size: int
    equal: bool = True


class GroupGenerator(Generator):
    """Draws what all groups of a step share; `own` draws the rest."""

    own: Generator


def own_generator(generator: Generator) -> Generator:
    """The generator of what differs between the groups of a batch; for a batch in one group, `generator` itself."""
    return generator.own if isinstance(generator, GroupGenerator) else generator


def mask_groups(strategies: Sequence[Strategy]) -> MaskGroups | None:
    """How masks of these strategies are drawn; None: for the whole batch at once.

    Functions and legacy masks without `legacy_group` may depend on the whole batch. Raises ValueError if strategies
    disagree.
    """
    legacy = [one for one in strategies if getattr(one, "legacy", "none") != "none"]
    sizes = {one.legacy_group for one in legacy if isinstance(one, BlockMaskConfig | TubeMaskConfig)}
    if any(isinstance(one, FunctionMaskConfig) for one in strategies):
        sizes.add(None)
    if len(sizes) > 1:
        raise ValueError("masking: legacy_group must be the same in all strategies, and none may be a function")
    size = sizes.pop() if sizes else SIZE
    return None if size is None else MaskGroups(size, equal=not legacy)
