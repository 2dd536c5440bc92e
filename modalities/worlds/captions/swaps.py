"""Pairs of captions of the same words in different order, one true and one false of the scene."""

from itertools import permutations
from math import dist

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.captions.words import RELATIONS, Attributes, Speaker, Thing, visible_things
from modalities.worlds.scenes.description import COLOURS

CLEAR = 0.006  # share of the image that an object must cover to be mentioned
_ANY = 1e-9  # share from which on an object may make a caption true
_COLOURS_APART = 0.45  # distance in sRGB between clearly different colours
_DRAWS = 8  # kind of random draws, different from all others in the world
_BOTH = ("{} and {}", "a picture of {} and {}", "there is {} and {}", "{} with {}")
_RELATED = ("{} {} {}", "{} is {} {}", "a picture of {} {} {}", "there is {} {} {}")

Swap = tuple[str, str]  # true, false


def swaps(objects: NDArray[np.void], seed: int, index: int) -> dict[str, Swap]:
    """A true and a false caption of scene `index`, by kind of difference, if possible; objects: [K].

    attribute: two things of different shapes swap colour or material; nothing in the image, however small, matches the
    false descriptions. relation: two things swap places; the false relation holds for no two things that match the
    descriptions. Which thing comes first is random, so that the words alone do not reveal the true caption.
    """
    speaker, present = Speaker(seed, _DRAWS, index), visible_things(objects, _ANY)
    clear = [thing for thing in present if thing.share >= CLEAR]
    found = {"attribute": _attribute(speaker, clear, present), "relation": _relation(speaker, clear, present)}
    return {name: swap for name, swap in found.items() if swap}


def _attribute(speaker: Speaker, clear: list[Thing], present: list[Thing]) -> Swap | None:
    """Swap colours or, less often, materials, which are harder to see."""
    template, both = speaker.pick(_BOTH), speaker.chance(0.25)
    order = ("colour", "material") if speaker.chance(0.75) else ("material", "colour")
    for name in order:
        if pairs := [pair for pair in permutations(clear, 2) if _swappable(name, *pair, present)]:
            mentioned = ("shape", *order) if both or name == "material" else ("shape", name)
            one, other = (_only(thing.attributes, *mentioned) for thing in speaker.pick(pairs))
            swapped = (_with(one, name, other), _with(other, name, one))
            true, false = (template.format(*map(speaker.phrase, pair)) for pair in ((one, other), swapped))
            return true, false
    return None


def _swappable(name: str, one: Thing, other: Thing, present: list[Thing]) -> bool:
    """Whether two things differ in shape and clearly in an attribute, and no thing matches either after the swap."""
    first, second = (_only(thing.attributes, "shape", name) for thing in (one, other))
    if first.shape == second.shape or not _clearly_differ(name, getattr(first, name), getattr(second, name)):
        return False
    swapped = (_with(first, name, second), _with(second, name, first))
    return not any(description.fit(thing) for description in swapped for thing in present)


def _relation(speaker: Speaker, clear: list[Thing], present: list[Thing]) -> Swap | None:
    template = speaker.pick(_RELATED)
    mentioned = ("shape", "colour") if speaker.chance(0.75) else ("shape",)
    found = []
    for pair in permutations(clear, 2):
        one, other = (_only(thing.attributes, *mentioned) for thing in pair)
        names = [name for name in RELATIONS if pair[0].is_related(name, pair[1])]
        found += [(one, name, other) for name in names if one != other and _all_related(one, name, other, present)]
    if not found:
        return None
    one, name, other = speaker.pick(found)
    first, second, relation = speaker.phrase(one), speaker.phrase(other), speaker.relation(name)
    return template.format(first, relation, second), template.format(second, relation, first)


def _all_related(one: Attributes, relation: str, other: Attributes, present: list[Thing]) -> bool:
    """Whether the relation holds for all pairs that match; then the reverse holds for none."""
    firsts, seconds = ([thing for thing in present if description.fit(thing)] for description in (one, other))
    return all(first.is_related(relation, second) for first in firsts for second in seconds)


def _only(attributes: Attributes, *names: str) -> Attributes:
    return Attributes(**{name: getattr(attributes, name) for name in names})


def _with(attributes: Attributes, name: str, giver: Attributes) -> Attributes:
    return attributes._replace(**{name: getattr(giver, name)})


def _clearly_differ(name: str, one: str, other: str) -> bool:
    """Whether two colours or two materials are easy to distinguish."""
    if name == "colour":
        return dist(COLOURS[one], COLOURS[other]) >= _COLOURS_APART
    return one != other and "metal" in (one, other)  # matte and plastic differ only in highlights
