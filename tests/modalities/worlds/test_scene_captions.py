"""Captions of scenes are true according to an independent reader; false ones cannot be identified from words alone."""

import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from open_clip.tokenizer import SimpleTokenizer

from modalities.image_text.config import ImageTextConfig
from modalities.worlds.captions.dataset import CaptionedScenes
from modalities.worlds.captions.grammar import captions
from modalities.worlds.captions.swaps import swaps
from modalities.worlds.captions.words import SHAPE_NOUNS
from modalities.worlds.scenes.dataset import Scenes, ScenesConfig
from modalities.worlds.scenes.description import COLOURS, MATERIALS, PATTERNS, SceneBatch
from modalities.worlds.scenes.parts import MAX_OBJECTS
from modalities.worlds.scenes.render import RenderedScenes, render
from modalities.worlds.scenes.sampling import sample_scenes
from modalities.worlds.scenes.shapes import CLASSES
from modalities.worlds.scenes.worker import OBJECT_TYPE, VISIBLE, object_records, scene_labels

SEED = 3


@pytest.fixture(scope="module")
def rendered() -> tuple[SceneBatch, RenderedScenes]:
    scenes = sample_scenes(SEED, np.arange(100), captioned=True)
    return scenes, render(scenes, 48)


@pytest.fixture(scope="module")
def worlds() -> np.ndarray:
    """Objects of many scenes: [1000, K]."""
    scenes = (sample_scenes(SEED, np.arange(start, start + 50), captioned=True) for start in range(0, 1000, 50))
    return np.concatenate([object_records(each, render(each, 32)) for each in scenes])


# An independent reader: it parses captions and checks every claim against the objects.

NUMBERS = {"a": 1, "an": 1, "no": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
PATTERNED = ("striped", "checked", "dotted", "tiled", "marbled", "banded", "zigzag", "lined", "starred")
WORDS: dict[str, Callable[[np.void], bool]] = {
    "large": lambda thing: thing["size"] >= 1.5,
    "small": lambda thing: thing["size"] < 1.0,
    **{name: (lambda thing, n=n: thing["colour"] == n) for n, name in enumerate(COLOURS)},
    **{name: (lambda thing, n=n: thing["material"] == n) for n, name in enumerate(MATERIALS)},
    **{word: (lambda thing, n=n: thing["pattern"] == n) for n, word in enumerate(PATTERNED, start=1)},
}
NOUNS: dict[str, Callable[[np.void], bool]] = {
    **{name: (lambda thing, n=n: thing["class"] == n) for n, name in enumerate(CLASSES)},
    "object": lambda thing: True,
    "thing": lambda thing: True,
}
NOUNS |= {also: NOUNS[name] for also, name in (("ball", "sphere"), ("pill", "capsule"), ("ring", "torus"))}
NOUNS |= {"donut": NOUNS["torus"]}
NOUNS |= {name + ("es" if name.endswith("s") else "s"): holds for name, holds in NOUNS.items()}

FRAME = r"(a picture of |an image of |a scene with |you can see |there is |there are )?"
SOME = rf"((?:{'|'.join(NUMBERS)})(?: (?:{'|'.join(WORDS)}))* (?:{'|'.join(NOUNS)}))"
NUMBER = r"(one|two|three|four|five)"
SAYING = rf"({'|'.join(chain(WORDS, NOUNS))}|{SOME})"
THINGS = "(?:objects|things)"
RELATIONS = {  # by phrase: axis, and whether the first thing has the smaller coordinate
    "left of": ("column", True),
    "to the left of": ("column", True),
    "right of": ("column", False),
    "to the right of": ("column", False),
    "in front of": ("distance", True),
    "closer than": ("distance", True),
    "behind": ("distance", False),
    "farther away than": ("distance", False),
}
BESIDE = {  # the same for the second thing
    "to its left": ("column", False),
    "to its right": ("column", True),
    "in front of it": ("distance", False),
    "behind it": ("distance", True),
}
PLACES: dict[str, Callable[[np.void], bool]] = {
    "on the left": lambda thing: thing["column"] <= 0.36,
    "on the right": lambda thing: thing["column"] >= 0.64,
    "in front": lambda thing: True,  # must be the main one, see below
    "in the middle": lambda thing: 0.42 <= thing["column"] <= 0.58,
}
FORMS = {
    name: re.compile(FRAME + form)
    for name, form in {
        "alone": rf"(?=.*(?:alone|single|only|nothing))"
        rf"(?:nothing but |a single object, |only one object: )?{SOME}(?: alone| and nothing else)?",
        "place": rf"{SOME} ({'|'.join(PLACES)})",
        "relation": rf"{SOME}(?: is)? ({'|'.join(RELATIONS)}) {SOME}",
        "beside": rf"{SOME} with {SOME} ({'|'.join(BESIDE)})",
        "list": rf"(?:{NUMBER} {THINGS}: )?{SOME}(?:, {SOME})*(?: and {SOME})?",
        "with": rf"{SOME} with {SOME}",
        "other": rf"{SOME} and {NUMBER} other (?:object|thing)s?",
        "nearest": rf"{NUMBER} {THINGS}, the nearest is {SOME}",
        "in all": rf"{SOME} in front, {NUMBER} {THINGS} in all",
        "with in front": rf"{NUMBER} {THINGS} with {SOME} in front",
        "all": rf"(both|all {NUMBER}) {THINGS} are {SAYING}",
        "of them": rf"{NUMBER} {THINGS}, {NUMBER} of them {SAYING}",
        "of the": rf"{NUMBER} of the {NUMBER} {THINGS} (?:is|are) {SAYING}",
    }.items()
}


class Reader:
    """Checks captions of one scene. aside, deeper: least differences for left and right, and for front and behind."""

    def __init__(self, objects: np.ndarray, min_share: float, aside: float, deeper: float) -> None:
        self.things = [thing for thing in objects if thing["class"] >= 0 and thing["share"] >= min_share]
        self.margins = {"column": aside, "distance": deeper}
        self.main = objects[0]

    def claims(self, caption: str) -> tuple[str, list[bool]]:
        """The form of a caption, and whether each of its claims holds; raises ValueError if no form matches."""
        found = [(name, match) for name, form in FORMS.items() if (match := form.fullmatch(caption))]
        if len(found) != 1:
            raise ValueError(f"{caption!r} matches the forms {[name for name, _ in found]}")
        name, match = found[0]
        return name, list(self._claims(name, caption.removeprefix(match[1] or ""), list(match.groups())[1:]))

    def true(self, caption: str) -> bool:
        return all(self.claims(caption)[1])

    def _claims(self, form: str, text: str, parts: list[str]) -> Iterator[bool]:
        match form:
            case "alone":
                yield from (self.counted(parts[0]), len(self.things) == 1)
            case "place":
                things = self.matching(parts[0])
                yield any(
                    PLACES[parts[1]](thing) and (parts[1] != "in front" or thing == self.main) for thing in things
                )
            case "relation":
                yield self.related(parts[0], *RELATIONS[parts[1]], parts[2])
            case "beside":
                yield self.related(parts[0], *BESIDE[parts[2]], parts[1])
            case "list":
                total, _, phrases = text.rpartition(": ")
                phrases = re.split(", | and ", phrases)
                yield from map(self.counted, phrases)
                if total:
                    yield self.counted(total)
                    yield sum(NUMBERS[phrase.split()[0]] for phrase in phrases) == len(self.things)
            case "with":
                yield from map(self.counted, parts)
            case _:
                yield from self._numbers(form, parts)

    def _numbers(self, form: str, parts: list[str]) -> Iterator[bool]:
        match form:
            case "other":
                number = NUMBERS[parts[0].split()[0]]
                yield number == len(self.matching(parts[0]))
                yield number + NUMBERS[parts[1]] == len(self.things)
            case "nearest" | "with in front" | "in all":
                number, phrase = parts if parts[0] in NUMBERS else parts[::-1]
                yield NUMBERS[number] == len(self.things)
                yield any(thing == self.main for thing in self.matching(phrase))
            case "all":
                yield len(self.things) == (2 if parts[0] == "both" else NUMBERS[parts[1]])
                yield len(self.matching(parts[2])) == len(self.things)
            case "of them" | "of the":
                total, number = parts[:2] if form == "of them" else parts[1::-1]
                yield NUMBERS[total] == len(self.things)
                yield NUMBERS[number] == len(self.matching(parts[2]))

    def matching(self, phrase: str) -> list[np.void]:
        words = [word for word in phrase.split() if word not in (*NUMBERS, "other")]
        return [thing for thing in self.things if all((WORDS | NOUNS)[word](thing) for word in words)]

    def counted(self, phrase: str) -> bool:
        first = phrase.split()[0]
        return len(self.matching(phrase)) >= 1 if first in ("a", "an") else len(self.matching(phrase)) == NUMBERS[first]

    def related(self, one: str, axis: str, less: bool, other: str) -> bool:
        gaps = [b[axis] - a[axis] for a in self.matching(one) for b in self.matching(other) if a != b]
        return any((gap if less else -gap) >= self.margins[axis] for gap in gaps)


strict = partial(Reader, min_share=VISIBLE, aside=0.15, deeper=1.0)
lenient = partial(Reader, min_share=1e-9, aside=-0.02, deeper=-0.2)  # also accepts what is almost true


def test_object_records_agree_with_the_image(rendered: tuple[SceneBatch, RenderedScenes]) -> None:
    scenes, images = rendered
    found, labels = object_records(scenes, images), scene_labels(scenes, images)
    assert found.shape == (100, MAX_OBJECTS)
    np.testing.assert_array_equal((found["class"] >= 0).sum(axis=1), scenes.objects.count)
    np.testing.assert_array_equal((found["share"] >= VISIBLE).sum(axis=1), labels["count"])
    np.testing.assert_array_equal(found["class"][:, 0], labels["class"])
    for number in range(100):
        for slot in range(MAX_OBJECTS):
            thing, (rows, columns) = found[number, slot], np.nonzero(images.objects[number] == slot)
            if slot >= scenes.objects.count[number]:
                empty = np.zeros((), dtype=OBJECT_TYPE)
                empty["class"] = -1
                assert thing == empty
                continue
            assert thing["share"] == pytest.approx(len(rows) / 48**2)
            if len(rows):
                assert thing["column"] == pytest.approx((columns.mean() + 0.5) / 48, abs=1e-5)
                assert thing["row"] == pytest.approx((rows.mean() + 0.5) / 48, abs=1e-5)
                nearest = images.depth[number][rows, columns].min()
                assert abs(thing["distance"] - nearest) <= scenes.objects.radius[number, slot] + 1e-3
            assert (thing["contrast"] == 0) == (PATTERNS[scenes.objects.pattern[number, slot]] == "plain")


def test_captions_are_true_of_what_is_visible(worlds: np.ndarray) -> None:
    forms, words = Counter[str](), Counter[str]()
    for index, objects in enumerate(worlds[:600]):
        reader = strict(objects)
        for caption in captions(objects, SEED, index):
            form, claims = reader.claims(caption)
            assert all(claims), (caption, objects)
            forms[form] += 1
            words.update(caption.replace(",", "").replace(":", "").split())
    assert min(forms[form] for form in FORMS) > 5, forms
    assert min(words[word] for word in WORDS) > 15, words
    assert min(words[word] for word in (*SHAPE_NOUNS.values(), "ball", "two", "three", "four", "five")) > 15, words


def test_the_reader_rejects_false_captions(worlds: np.ndarray) -> None:
    """Captions of other scenes are mostly false, in every form."""
    true, all_of = Counter[str](), Counter[str]()
    for index, objects in enumerate(worlds[:600]):
        for caption in captions(worlds[index + 1], SEED, index + 1):
            form, claims = strict(objects).claims(caption)
            true[form] += all(claims)
            all_of[form] += 1
    assert all(true[form] / all_of[form] < 0.4 for form in FORMS), (true, all_of)
    assert true.total() / all_of.total() < 0.1


def test_one_caption_of_each_swap_is_true_and_the_other_is_false(worlds: np.ndarray) -> None:
    times, words = Counter[str](), Counter[str]()
    for index, objects in enumerate(worlds[:1000]):
        for name, (true, false) in swaps(objects, SEED, index).items():
            assert sorted(true.split()) == sorted(false.split())
            assert strict(objects).true(true), (true, objects)
            assert not lenient(objects).true(false), (false, objects)
            times[name] += 1
            words.update(relation for relation in RELATIONS if f" {relation} a" in true)
    several = sum((objects["share"] >= VISIBLE).sum() > 1 for objects in worlds[:1000])
    assert min(times["attribute"], times["relation"]) > 0.8 * several
    assert min(words[relation] for relation in RELATIONS) > 40, words


def test_words_alone_do_not_reveal_which_caption_is_true(worlds: np.ndarray) -> None:
    """A linear model of words by position and of word pairs, trained on half of the swaps, is at chance on the rest."""
    from sklearn.feature_extraction import DictVectorizer  # slow, and only this test needs them
    from sklearn.linear_model import LogisticRegression

    found = [swaps(objects, SEED, index) for index, objects in enumerate(worlds)]
    for name in ("attribute", "relation"):
        pairs = [each[name] for each in found if name in each]
        features = DictVectorizer().fit_transform([words_of(caption) for pair in pairs for caption in pair])
        differences = features[::2] - features[1::2]  # true minus false caption
        half = len(pairs) // 2
        sign = np.where(np.arange(half) % 2, 1, -1)
        model = LogisticRegression(C=0.1, fit_intercept=False).fit(differences[:half].multiply(sign[:, None]), sign)
        right = (model.decision_function(differences[half:]) > 0).mean()
        assert right == pytest.approx(0.5, abs=0.06), name  # about three standard deviations of chance


def words_of(caption: str) -> dict[str, int]:
    words = caption.split()
    forward = [f"{index} {word}" for index, word in enumerate(words)]
    backward = [f"{index - len(words)} {word}" for index, word in enumerate(words)]
    return dict.fromkeys((*forward, *backward, *map(" ".join, pairwise(words))), 1)


def test_captions_are_short_and_varied(worlds: np.ndarray) -> None:
    every = [captions(objects, SEED, index) for index, objects in enumerate(worlds)]
    lengths = np.array([len(caption.split()) for caption in chain(*every)])
    assert ((lengths >= 6) & (lengths <= 20)).mean() > 0.9
    assert len(set(chain(*every))) > 0.8 * len(lengths)
    tokenizer = SimpleTokenizer()
    pairs = (swaps(objects, SEED, index).values() for index, objects in enumerate(worlds))
    words = chain(
        *every,
        *chain(*pairs),
        [each.format(noun) for each in ImageTextConfig().prompts for noun in SHAPE_NOUNS.values()],
    )
    assert max(len(tokenizer.encode(caption)) for caption in words) + 2 <= 30  # with start and end tokens


def test_captions_are_functions_of_the_scene_and_its_index(worlds: np.ndarray) -> None:
    objects = worlds[9]
    assert captions(objects, 0, 5) == captions(objects.copy(), 0, 5)
    assert captions(objects, 0, 5)[:2] == captions(objects, 0, 5, count=2)
    assert swaps(objects, 0, 5) == swaps(objects, 0, 5)
    assert len({captions(objects, seed, index) for seed in range(2) for index in range(4)}) == 8
    nothing = np.zeros(MAX_OBJECTS, dtype=OBJECT_TYPE)
    assert "object" in captions(nothing, 0, 0)[0] or "empty" in captions(nothing, 0, 0)[0]
    assert swaps(nothing, 0, 0) == {}


def test_the_data_set_has_images_captions_and_labels_of_the_same_scene(tmp_path: Path) -> None:
    config = ScenesConfig(train=12, validation=12)
    captioned = CaptionedScenes(config, "validation", 32, tmp_path)
    scenes = Scenes(config, "validation", 32, tmp_path, captioned=True)
    again = pickle.loads(pickle.dumps(captioned))
    assert len(captioned) == 12
    for index in range(12):
        sample, plain = captioned[index], scenes[index]
        assert (sample.inputs.image == plain.inputs).all()
        assert sample.labels.keys() == {*plain.labels, "colour"}
        assert sample.labels["colour"] == scenes.objects(index)["colour"][0]
        assert sample.labels["count"] == plain.labels["count"] == (scenes.objects(index)["share"] >= VISIBLE).sum()
        assert all(map(strict(scenes.objects(index)).true, sample.inputs.captions))
        assert sample.inputs[1:] == again[index].inputs[1:]
    assert {name for index in range(12) for name in captioned[index].inputs.swaps} == {"attribute", "relation"}
    training = CaptionedScenes(config, "train", 32, tmp_path)
    assert all(training[index].inputs.swaps == {} for index in range(12))
    assert (
        len({sample.inputs.captions for each in (training, captioned) for sample in map(each.__getitem__, range(12))})
        == 24
    )
    with pytest.raises(IndexError):
        captioned[12]
