"""Captions of scenes, true of what is visible: a small grammar with random choices.

A caption is a function of (objects, seed, index, number); objects: [K] of OBJECT_TYPE, the main (nearest) one first.
"""

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.captions.words import NUMBERS, RELATIONS, Attributes, Speaker, Thing, listed, visible_things
from modalities.worlds.scenes.worker import VISIBLE

CAPTIONS = 5  # per scene
_MIDDLE, _SIDE = 0.07, 0.15  # greatest and least distance from the image centre, in widths, of the middle and a side
_FORM_STEP = 3  # step from one caption to the next in _FORMS, so that no form is repeated
_DRAWS = 7  # kind of random draws, different from all others in the world

_FRAMES = ("{}", "{}", "a picture of {}", "an image of {}", "a scene with {}", "you can see {}", "there {be} {}")
_ALONE = ("{} alone", "nothing but {}", "{} and nothing else", "a single object, {}", "only one object: {}")
_PAIRS = ("{} and {}", "{} and {}", "{} with {}")
_BESIDE = {"left": "to its left", "right": "to its right", "front": "in front of it", "behind": "behind it"}


def captions(objects: NDArray[np.void], seed: int, index: int, count: int = CAPTIONS) -> tuple[str, ...]:
    """Captions of scene `index` of the world with this seed."""
    return tuple(caption(objects, seed, index, number) for number in range(count))


def caption(objects: NDArray[np.void], seed: int, index: int, number: int) -> str:
    """A caption that is true of the objects that cover at least 0.3 % of the image.

    `a` thing means at least one, `two` things exactly two. Size words refer to metres, not to pixels. Left means by at
    least 15 % of the image width, behind by at least 1 m.
    """
    speaker, things = Speaker(seed, _DRAWS, index, number), visible_things(objects, VISIBLE)
    if not things:
        return speaker.pick(("an empty scene", "a scene with no objects"))
    forms = _FORMS if len(things) > 1 else (_alone, _portrait)
    return forms[(index + _FORM_STEP * number) % len(forms)](speaker, things)


def _framed(speaker: Speaker, text: str) -> str:
    be = "are" if text.split()[0] in NUMBERS[2:] else "is"
    return speaker.pick(_FRAMES).format(text, be=be)


def _described(speaker: Speaker, thing: Thing, things: list[Thing], detail: float) -> Attributes:
    """The attributes to mention of a thing; always the colour if others have its shape."""
    own = thing.attributes
    ambiguous = sum(other.attributes.shape == own.shape for other in things) > 1
    return Attributes(
        size=own.size if speaker.chance(detail) else "",
        pattern=own.pattern if thing.pattern_visible and speaker.chance(detail) else "",
        colour=own.colour if speaker.chance(0.9) or ambiguous else "",
        material=own.material if speaker.chance(detail) else "",
        shape=own.shape,
    )


def _counted(speaker: Speaker, description: Attributes, things: list[Thing]) -> str:
    return speaker.phrase(description, sum(map(description.fit, things)))


def _alone(speaker: Speaker, things: list[Thing]) -> str:
    return _framed(speaker, speaker.pick(_ALONE).format(speaker.phrase(_described(speaker, things[0], things, 0.6))))


def _portrait(speaker: Speaker, things: list[Thing]) -> str:
    """The main thing and its position."""
    description = _described(speaker, things[0], things, 0.6)
    if sum(map(description.fit, things)) > 1:
        return _framed(speaker, _counted(speaker, description, things))
    offset = things[0].column - 0.5
    positions = ["", "in front"]
    if abs(offset) >= _SIDE:
        positions.append("on the left" if offset < 0 else "on the right")
    if abs(offset) <= _MIDDLE:
        positions.append("in the middle")
    return _framed(speaker, f"{speaker.phrase(description)} {speaker.pick(positions)}".rstrip())


def _pair(speaker: Speaker, things: list[Thing]) -> str:
    one, other = (_described(speaker, thing, things, 0.35) for thing in (things[0], speaker.pick(things[1:])))
    if any(one.fit(thing) and other.fit(thing) for thing in things):  # a number would count both
        return _listing(speaker, things)
    both = (_counted(speaker, one, things), _counted(speaker, other, things))
    return _framed(speaker, speaker.pick(_PAIRS).format(*both))


def _relation(speaker: Speaker, things: list[Thing]) -> tuple[Attributes, str, Attributes] | None:
    """A thing (mostly the main one), a relation, and another thing; None if no relation is clear."""
    one = things[0] if speaker.chance(0.8) else speaker.pick(things)
    found = [(name, other) for other in things for name in RELATIONS if one.is_related(name, other)]
    if not found:
        return None
    name, other = speaker.pick(found)
    first, second = (_described(speaker, thing, things, 0.25) for thing in (one, other))
    return None if first.fit(other) or second.fit(one) else (first, name, second)


def _related(speaker: Speaker, things: list[Thing]) -> str:
    if not (found := _relation(speaker, things)):
        return _pair(speaker, things)
    one, other = speaker.phrase(found[0]), speaker.phrase(found[2])
    relation = speaker.relation(found[1])
    if speaker.chance(0.4):
        return f"{one} is {relation} {other}"
    return _framed(speaker, f"{one} {relation} {other}")


def _beside(speaker: Speaker, things: list[Thing]) -> str:
    """As _related, but states where the other thing is."""
    if not (found := _relation(speaker, things)):
        return _pair(speaker, things)
    converse = {"left": "right", "right": "left", "front": "behind", "behind": "front"}[found[1]]
    one, other = speaker.phrase(found[0]), speaker.phrase(found[2])
    return _framed(speaker, f"{one} with {other} {_BESIDE[converse]}")


def _listing(speaker: Speaker, things: list[Thing]) -> str:
    """All things, grouped by shape."""
    phrases = []
    for shape in dict.fromkeys(thing.attributes.shape for thing in things):
        group = [thing.attributes for thing in things if thing.attributes.shape == shape]
        colours = list(dict.fromkeys(attributes.colour for attributes in group))
        if len(colours) > 1 and speaker.chance(0.5):
            colours = [""]
        phrases += [_counted(speaker, Attributes(colour=colour, shape=shape), things) for colour in colours]
    if speaker.chance(0.3):
        return f"{speaker.phrase(Attributes(), len(things))}: {listed(phrases)}"
    return _framed(speaker, listed(phrases))


def _total(speaker: Speaker, things: list[Thing]) -> str:
    """The main thing and the total number."""
    description = _described(speaker, things[0], things, 0.4)
    main, rest = _counted(speaker, description, things), len(things) - sum(map(description.fit, things))
    if rest and speaker.chance(0.5):
        others = f"{NUMBERS[rest]} other {speaker.noun('', rest)}"
        return _framed(speaker, f"{main} and {others}")
    total = speaker.phrase(Attributes(), len(things))
    form = speaker.pick(
        ("{total}, the nearest is {main}", "{main} in front, {total} in all", "{total} with {main} in front")
    )
    return form.format(total=total, main=speaker.phrase(description))


def _shared(speaker: Speaker, things: list[Thing]) -> str:
    """How many things share one attribute."""
    thing = speaker.pick(things)
    own = thing.attributes if thing.pattern_visible else thing.attributes._replace(pattern="")
    name, word = speaker.pick([(name, word) for name, word in own._asdict().items() if word])
    description = Attributes(**{name: word})
    count, total = sum(map(description.fit, things)), len(things)
    if description.shape:
        word = speaker.phrase(description) if count == 1 else speaker.noun(description.shape, count)
    objects, be = speaker.noun("", total), "is" if count == 1 else "are"
    if count == total:
        return f"{'both' if total == 2 else f'all {NUMBERS[total]}'} {objects} are {word}"
    if speaker.chance(0.5):
        return f"{NUMBERS[total]} {objects}, {NUMBERS[count]} of them {word}"
    return f"{NUMBERS[count]} of the {NUMBERS[total]} {objects} {be} {word}"


_FORMS = (_portrait, _pair, _related, _beside, _listing, _related, _total, _shared)  # of captions of several things
