"""Words for the embedded world: things as they are seen, what may be said of them, how it is put."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.scenes.description import COLOURS, MATERIALS, PATTERNS
from modalities.worlds.scenes.shapes import CLASSES

SAID = dict(zip(CLASSES, CLASSES, strict=True)) | {"torus": "ring"}
NUMBERS = ("no", "one", "two", "three", "four", "five")
ASIDE = 0.15  # share of an image's width by which a thing's middle is left or right of another's
DEEPER = 1.0  # metres by which a thing's middle is farther away than that of one in front of it
LARGE, SMALL = 1.5, 1.0  # metres across: at least, less than; between them nothing is said
_MARKED = (0.02, 0.3)  # share of the image and contrast from which a pattern is seen

_ALSO_SAID = {"sphere": "ball", "torus": "donut", "capsule": "pill"}
_THINGS = ("object", "thing")
_PATTERNED = dict(zip(PATTERNS, PATTERNS, strict=True)) | {
    "plain": "",
    "stripes": "striped",
    "checks": "checked",
    "dots": "dotted",
    "tiles": "tiled",
    "clouds": "marbled",
    "rings": "banded",
    "lines": "lined",
    "crosses": "starred",
}
_RELATIONS = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "front": ("in front of", "closer than"),
    "behind": ("behind", "farther away than"),
}
RELATIONS = tuple(_RELATIONS)
_COLOURS = tuple(COLOURS)
T = TypeVar("T")


class Looks(NamedTuple):
    """What a thing looks like, or what is said of that: "" for what has no word or is left unsaid."""

    size: str = ""
    pattern: str = ""
    colour: str = ""
    material: str = ""
    shape: str = ""

    def fit(self, thing: "Thing") -> bool:
        """Whether all that is said here is true of a thing."""
        own = thing.looks
        return (
            self.shape in ("", own.shape)
            and self.colour in ("", own.colour)
            and self.material in ("", own.material)
            and self.pattern in ("", own.pattern)
            and self.size in ("", own.size)
        )


class Thing(NamedTuple):
    """An object as it is seen: marked if its pattern shows, share of the pixels, place across 0..1, metres away."""

    looks: Looks
    marked: bool
    share: float
    column: float
    distance: float

    def stands(self, relation: str, other: "Thing") -> bool:
        """Whether this one stands clearly so to another, for a relation in RELATIONS."""
        match relation:
            case "left":
                return other.column - self.column >= ASIDE
            case "front":
                return other.distance - self.distance >= DEEPER
            case "right":
                return other.stands("left", self)
            case _:
                return other.stands("front", self)


def things(objects: NDArray[np.void], least: float) -> list[Thing]:
    """Those of the objects [K], of OBJECT_TYPE, that cover at least a share of the image: in their order."""
    seen = []
    for shape, colour, material, pattern, contrast, size, share, column, _, distance in objects.tolist():
        if shape >= 0 and share >= least:
            looks = Looks(
                size="large" if size >= LARGE else "small" if size < SMALL else "",
                pattern=_PATTERNED[PATTERNS[pattern]],
                colour=_COLOURS[colour],
                material=MATERIALS[material],
                shape=CLASSES[shape],
            )
            marked = share >= _MARKED[0] and contrast >= _MARKED[1]
            seen.append(Thing(looks, marked, share, column, distance))
    return seen


class Speaker:
    """Puts things into words; which ones is a function of what the speaker is made from."""

    def __init__(self, *entropy: int) -> None:
        self._rng = np.random.default_rng(entropy)
        self._synonym = self._rng.random()  # who says ball for one sphere says so for all

    def chance(self, share: float) -> bool:
        """True in a share of cases."""
        return bool(self._rng.random() < share)

    def pick(self, offered: Sequence[T]) -> T:
        """One of those offered."""
        return offered[int(self._rng.random() * len(offered))]

    def noun(self, shape: str, count: int = 1) -> str:
        """A word for a shape, or for any thing where it is "", in the plural for more than one."""
        if not shape:
            noun = _THINGS[self._synonym < 0.3]
        elif shape in _ALSO_SAID and self._synonym < 0.5:
            noun = _ALSO_SAID[shape]
        else:
            noun = SAID[shape]
        return noun + ("" if count == 1 else "es" if noun.endswith("s") else "s")

    def phrase(self, said: Looks, count: int = 1) -> str:
        """Such as `a large red ball` or `two cubes`."""
        words = [*filter(None, said[:-1]), self.noun(said.shape, count)]
        article = NUMBERS[count] if count > 1 else "an" if words[0][0] in "aeiou" else "a"
        return " ".join((article, *words))

    def relation(self, name: str) -> str:
        """Words for a relation."""
        return self.pick(_RELATIONS[name])


def listed(phrases: Sequence[str]) -> str:
    """Such as `one, two and three`."""
    return " and ".join((", ".join(phrases[:-1]), phrases[-1])) if len(phrases) > 1 else phrases[0]
