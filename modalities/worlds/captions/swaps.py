"""Pairs of captions of the embedded world: the same words in another order, one true and one false of the image."""

from itertools import permutations
from math import dist

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.captions.words import RELATIONS, Looks, Speaker, Thing, things
from modalities.worlds.scenes.description import COLOURS

CLEAR = 0.006  # share of the image that an object must cover for a false caption to turn on it
_ANY = 1e-9  # the same for an object that might make a caption true
_COLOURS_APART = 0.45  # distance in sRGB of colours that nobody takes for one another
_DRAWS = 8  # the kind of draws, which no other part of the world has
_BOTH = ("{} and {}", "a picture of {} and {}", "there is {} and {}", "{} with {}")
_RELATED = ("{} {} {}", "{} is {} {}", "a picture of {} {} {}", "there is {} {} {}")

Swap = tuple[str, str]  # true, false


def swaps(objects: NDArray[np.void], seed: int, index: int) -> dict[str, Swap]:
    """A true and a false caption of scene `index` by what tells them apart, where there are such; objects: [K].

    attribute: colours or materials of two things of different shapes change places; nothing in the image, however
    little of it shows, is what the false caption calls either. relation: two things change places; no two things that
    could be meant stand as the false caption says. Which thing comes first is left to chance, so that the words alone
    do not tell which caption is true.
    """
    speaker, present = Speaker(seed, _DRAWS, index), things(objects, _ANY)
    clear = [thing for thing in present if thing.share >= CLEAR]
    found = {"attribute": _attribute(speaker, clear, present), "relation": _relation(speaker, clear, present)}
    return {name: swap for name, swap in found.items() if swap}


def _attribute(speaker: Speaker, clear: list[Thing], present: list[Thing]) -> Swap | None:
    """Swap a colour or, less often, a material, which is harder to see."""
    template, also = speaker.pick(_BOTH), speaker.chance(0.25)
    order = ("colour", "material") if speaker.chance(0.75) else ("material", "colour")
    for name in order:
        if pairs := [pair for pair in permutations(clear, 2) if _bound(name, *pair, present)]:
            spoken = ("shape", *order) if also or name == "material" else ("shape", name)
            one, other = (_only(thing.looks, *spoken) for thing in speaker.pick(pairs))
            swapped = (_with(one, name, other), _with(other, name, one))
            true, false = (template.format(*map(speaker.phrase, pair)) for pair in ((one, other), swapped))
            return true, false
    return None


def _bound(name: str, one: Thing, other: Thing, present: list[Thing]) -> bool:
    """Whether two things differ in shape and plainly in what is named, and no thing has what they would exchange."""
    first, second = (_only(thing.looks, "shape", name) for thing in (one, other))
    if first.shape == second.shape or not _apart(name, getattr(first, name), getattr(second, name)):
        return False
    exchanged = (_with(first, name, second), _with(second, name, first))
    return not any(said.fit(thing) for said in exchanged for thing in present)


def _relation(speaker: Speaker, clear: list[Thing], present: list[Thing]) -> Swap | None:
    template = speaker.pick(_RELATED)
    spoken = ("shape", "colour") if speaker.chance(0.75) else ("shape",)
    found = []
    for pair in permutations(clear, 2):
        one, other = (_only(thing.looks, *spoken) for thing in pair)
        names = [name for name in RELATIONS if pair[0].stands(name, pair[1])]
        found += [(one, name, other) for name in names if one != other and _all_stand(one, name, other, present)]
    if not found:
        return None
    one, name, other = speaker.pick(found)
    first, second, relation = speaker.phrase(one), speaker.phrase(other), speaker.relation(name)
    return template.format(first, relation, second), template.format(second, relation, first)


def _all_stand(one: Looks, relation: str, other: Looks, present: list[Thing]) -> bool:
    """Whether any two things that could be meant stand so: then none stand the other way round."""
    firsts, seconds = ([thing for thing in present if said.fit(thing)] for said in (one, other))
    return all(first.stands(relation, second) for first in firsts for second in seconds)


def _only(looks: Looks, *names: str) -> Looks:
    return Looks(**{name: getattr(looks, name) for name in names})


def _with(looks: Looks, name: str, giver: Looks) -> Looks:
    return looks._replace(**{name: getattr(giver, name)})


def _apart(name: str, one: str, other: str) -> bool:
    """Whether two colours or two materials are easily told apart."""
    if name == "colour":
        return dist(COLOURS[one], COLOURS[other]) >= _COLOURS_APART
    return one != other and "metal" in (one, other)  # matte and plastic differ by highlights alone
