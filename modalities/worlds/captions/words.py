"""Words for the embedded world: visible things, their attributes, and phrases for them."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.scenes.description import COLOURS, MATERIALS, PATTERNS
from modalities.worlds.scenes.shapes import CLASSES

SHAPE_NOUNS = dict(zip(CLASSES, CLASSES, strict=True)) | {"torus": "ring"}
NUMBERS = ("no", "one", "two", "three", "four", "five")
ASIDE = 0.15  # least horizontal distance between centres for left and right, in image widths
DEEPER = 1.0  # least difference in distance for in front and behind, in metres
LARGE, SMALL = 1.5, 1.0  # metres: large things are at least, small ones less than this; others have no size word
_PATTERN_VISIBLE = (0.02, 0.3)  # share of the image and contrast from which on a pattern is visible

_SYNONYMS = {"sphere": "ball", "torus": "donut", "capsule": "pill"}
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


class Attributes(NamedTuple):
    """Attributes of a thing, or those that a phrase mentions; "" for none."""

    size: str = ""
    pattern: str = ""
    colour: str = ""
    material: str = ""
    shape: str = ""

    def fit(self, thing: "Thing") -> bool:
        """Whether all these attributes are true of a thing."""
        return all(word in ("", actual) for word, actual in zip(self, thing.attributes, strict=True))


class Thing(NamedTuple):
    """A visible object. share: of the image's pixels; column: of its centre, 0 to 1; distance: metres."""

    attributes: Attributes
    pattern_visible: bool
    share: float
    column: float
    distance: float

    def is_related(self, relation: str, other: "Thing") -> bool:
        """Whether a relation of RELATIONS to another thing clearly holds."""
        match relation:
            case "left":
                return other.column - self.column >= ASIDE
            case "front":
                return other.distance - self.distance >= DEEPER
            case "right":
                return other.is_related("left", self)
            case _:
                return other.is_related("front", self)


def visible_things(objects: NDArray[np.void], min_share: float) -> list[Thing]:
    """The objects [K] of OBJECT_TYPE that cover at least this share of the image, in their order."""
    things = []
    for shape, colour, material, pattern, contrast, size, share, column, _, distance in objects.tolist():
        if shape >= 0 and share >= min_share:
            attributes = Attributes(
                size="large" if size >= LARGE else "small" if size < SMALL else "",
                pattern=_PATTERNED[PATTERNS[pattern]],
                colour=_COLOURS[colour],
                material=MATERIALS[material],
                shape=CLASSES[shape],
            )
            pattern_visible = share >= _PATTERN_VISIBLE[0] and contrast >= _PATTERN_VISIBLE[1]
            things.append(Thing(attributes, pattern_visible, share, column, distance))
    return things


class Speaker:
    """Chooses words at random; its choices are a function of the entropy that it is made from."""

    def __init__(self, *entropy: int) -> None:
        self._rng = np.random.default_rng(entropy)
        self._synonym = self._rng.random()  # one choice per speaker: it says ball for all spheres or for none

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self._rng.random() < probability)

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return choices[int(self._rng.random() * len(choices))]

    def noun(self, shape: str, count: int = 1) -> str:
        """A noun for a shape, or a general one for "", in the plural unless the count is 1."""
        if not shape:
            noun = _THINGS[self._synonym < 0.3]
        elif shape in _SYNONYMS and self._synonym < 0.5:
            noun = _SYNONYMS[shape]
        else:
            noun = SHAPE_NOUNS[shape]
        return noun + ("" if count == 1 else "es" if noun.endswith("s") else "s")

    def phrase(self, attributes: Attributes, count: int = 1) -> str:
        """Such as `a large red ball` or `two cubes`."""
        words = [*filter(None, attributes[:-1]), self.noun(attributes.shape, count)]
        article = NUMBERS[count] if count > 1 else "an" if words[0][0] in "aeiou" else "a"
        return " ".join((article, *words))

    def relation(self, name: str) -> str:
        """A phrase for a relation."""
        return self.pick(_RELATIONS[name])


def listed(phrases: Sequence[str]) -> str:
    """Such as `one, two and three`."""
    return " and ".join((", ".join(phrases[:-1]), phrases[-1])) if len(phrases) > 1 else phrases[0]
