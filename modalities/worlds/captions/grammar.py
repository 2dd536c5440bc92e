"""Captions of the embedded world, true of what is visible: a small grammar and a speaker who draws from it.

All are functions of (objects, seed, index, number); objects: [K] of OBJECT_TYPE, the main one, the nearest, first.
"""

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.captions.words import NUMBERS, RELATIONS, Looks, Speaker, Thing, listed, things
from modalities.worlds.scenes.worker import VISIBLE

CAPTIONS = 5  # of a scene
_MIDDLE, _SIDE = 0.07, 0.15  # share of the width: at most that far from its middle, at least that far
_FORM_STEP = 3  # from one caption to the next: no form comes twice among several
_DRAWS = 7  # the kind of draws, which no other part of the world has

_FRAMES = ("{}", "{}", "a picture of {}", "an image of {}", "a scene with {}", "you can see {}", "there {be} {}")
_ALONE = ("{} alone", "nothing but {}", "{} and nothing else", "a single object, {}", "only one object: {}")
_PAIRS = ("{} and {}", "{} and {}", "{} with {}")
_BESIDE = {"left": "to its left", "right": "to its right", "front": "in front of it", "behind": "behind it"}


def captions(objects: NDArray[np.void], seed: int, index: int, count: int = CAPTIONS) -> tuple[str, ...]:
    """Several captions of scene `index` of the world of a seed."""
    return tuple(caption(objects, seed, index, number) for number in range(count))


def caption(objects: NDArray[np.void], seed: int, index: int, number: int) -> str:
    """A caption that is true of the objects that cover at least 0.3 % of the image.

    `a` thing is one at least, a number of things is that many and no more, a size is that of the solid in metres, not
    in the image. To the left means by at least 15 % of the image's width, behind by at least 1 m.
    """
    speaker, seen = Speaker(seed, _DRAWS, index, number), things(objects, VISIBLE)
    if not seen:
        return speaker.pick(("an empty scene", "a scene with no objects"))
    forms = _FORMS if len(seen) > 1 else (_alone, _portrait)
    return forms[(index + _FORM_STEP * number) % len(forms)](speaker, seen)


def _framed(speaker: Speaker, text: str) -> str:
    be = "are" if text.split()[0] in NUMBERS[2:] else "is"
    return speaker.pick(_FRAMES).format(text, be=be)


def _said(speaker: Speaker, thing: Thing, seen: list[Thing], rich: float) -> Looks:
    """What is said of a thing, the colour always where others have its shape."""
    looks = thing.looks
    alike = sum(other.looks.shape == looks.shape for other in seen) > 1
    return Looks(
        size=looks.size if speaker.chance(rich) else "",
        pattern=looks.pattern if thing.marked and speaker.chance(rich) else "",
        colour=looks.colour if speaker.chance(0.9) or alike else "",
        material=looks.material if speaker.chance(rich) else "",
        shape=looks.shape,
    )


def _counted(speaker: Speaker, said: Looks, seen: list[Thing]) -> str:
    return speaker.phrase(said, sum(map(said.fit, seen)))


def _alone(speaker: Speaker, seen: list[Thing]) -> str:
    return _framed(speaker, speaker.pick(_ALONE).format(speaker.phrase(_said(speaker, seen[0], seen, 0.6))))


def _portrait(speaker: Speaker, seen: list[Thing]) -> str:
    """The main thing and where it is."""
    said = _said(speaker, seen[0], seen, 0.6)
    if sum(map(said.fit, seen)) > 1:
        return _framed(speaker, _counted(speaker, said, seen))
    aside = seen[0].column - 0.5
    places = ["", "in front"]
    if abs(aside) >= _SIDE:
        places.append("on the left" if aside < 0 else "on the right")
    if abs(aside) <= _MIDDLE:
        places.append("in the middle")
    return _framed(speaker, f"{speaker.phrase(said)} {speaker.pick(places)}".rstrip())


def _pair(speaker: Speaker, seen: list[Thing]) -> str:
    one, other = (_said(speaker, thing, seen, 0.35) for thing in (seen[0], speaker.pick(seen[1:])))
    if any(one.fit(thing) and other.fit(thing) for thing in seen):  # one number would have to count both
        return _listing(speaker, seen)
    both = (_counted(speaker, one, seen), _counted(speaker, other, seen))
    return _framed(speaker, speaker.pick(_PAIRS).format(*both))


def _standing(speaker: Speaker, seen: list[Thing]) -> tuple[Looks, str, Looks] | None:
    """What is said of one thing, mostly the main one, of another, and how the one stands to the other."""
    one = seen[0] if speaker.chance(0.8) else speaker.pick(seen)
    found = [(name, other) for other in seen for name in RELATIONS if one.stands(name, other)]
    if not found:
        return None
    name, other = speaker.pick(found)
    first, second = (_said(speaker, thing, seen, 0.25) for thing in (one, other))
    return None if first.fit(other) or second.fit(one) else (first, name, second)


def _related(speaker: Speaker, seen: list[Thing]) -> str:
    if not (standing := _standing(speaker, seen)):
        return _pair(speaker, seen)
    one, other = speaker.phrase(standing[0]), speaker.phrase(standing[2])
    relation = speaker.relation(standing[1])
    if speaker.chance(0.4):
        return f"{one} is {relation} {other}"
    return _framed(speaker, f"{one} {relation} {other}")


def _beside(speaker: Speaker, seen: list[Thing]) -> str:
    """As _related, the other way round."""
    if not (standing := _standing(speaker, seen)):
        return _pair(speaker, seen)
    converse = {"left": "right", "right": "left", "front": "behind", "behind": "front"}[standing[1]]
    one, other = speaker.phrase(standing[0]), speaker.phrase(standing[2])
    return _framed(speaker, f"{one} with {other} {_BESIDE[converse]}")


def _listing(speaker: Speaker, seen: list[Thing]) -> str:
    """All things, those of one shape together."""
    phrases = []
    for shape in dict.fromkeys(thing.looks.shape for thing in seen):
        group = [thing.looks for thing in seen if thing.looks.shape == shape]
        colours = list(dict.fromkeys(looks.colour for looks in group))
        if len(colours) > 1 and speaker.chance(0.5):
            colours = [""]
        phrases += [_counted(speaker, Looks(colour=colour, shape=shape), seen) for colour in colours]
    if speaker.chance(0.3):
        return f"{speaker.phrase(Looks(), len(seen))}: {listed(phrases)}"
    return _framed(speaker, listed(phrases))


def _total(speaker: Speaker, seen: list[Thing]) -> str:
    """The main thing, and how many there are in all."""
    said = _said(speaker, seen[0], seen, 0.4)
    main, rest = _counted(speaker, said, seen), len(seen) - sum(map(said.fit, seen))
    if rest and speaker.chance(0.5):
        others = f"{NUMBERS[rest]} other {speaker.noun('', rest)}"
        return _framed(speaker, f"{main} and {others}")
    total = speaker.phrase(Looks(), len(seen))
    form = speaker.pick(
        ("{total}, the nearest is {main}", "{main} in front, {total} in all", "{total} with {main} in front")
    )
    return form.format(total=total, main=speaker.phrase(said))


def _shared(speaker: Speaker, seen: list[Thing]) -> str:
    """How many things share a look of one of them."""
    thing = speaker.pick(seen)
    looks = thing.looks if thing.marked else thing.looks._replace(pattern="")
    offered = [(name, word) for name, word in looks._asdict().items() if word]
    name, word = speaker.pick(offered)
    said = Looks(**{name: word})
    count, total = sum(map(said.fit, seen)), len(seen)
    if said.shape:
        word = speaker.phrase(said) if count == 1 else speaker.noun(said.shape, count)
    objects, be = speaker.noun("", total), "is" if count == 1 else "are"
    if count == total:
        return f"{'both' if total == 2 else f'all {NUMBERS[total]}'} {objects} are {word}"
    if speaker.chance(0.5):
        return f"{NUMBERS[total]} {objects}, {NUMBERS[count]} of them {word}"
    return f"{NUMBERS[count]} of the {NUMBERS[total]} {objects} {be} {word}"


_FORMS = (_portrait, _pair, _related, _beside, _listing, _related, _total, _shared)  # of captions of several things
