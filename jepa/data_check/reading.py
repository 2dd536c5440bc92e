"""Reads samples as training and evaluation do: which are bad, how long it takes, and what the network sees."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from jepa.data import open_split, seeded
from jepa.data.bad_files import described
from jepa.data.collate import collated
from jepa.matching import MatchedModality
from jepa.modality import BadSampleError, Modality, Sample, Split

PICTURES = 48  # in the mosaic
_DESCRIBED = 3
Size = tuple[tuple[str, float], ...]  # names of axes, which may be empty, and lengths


@dataclass
class SplitCheck:
    """What was found in a split of `total` samples.

    seconds: time to read and crop `timed` samples. sizes, labels: how often each occurs. descriptions: of the first
    pictures, if samples have a second stream that can be read. bad: source and reason.
    """

    split: Split
    total: int
    checked: int = 0
    timed: int = 0
    seconds: float = 0.0
    sizes: Counter[Size] = field(default_factory=Counter)
    labels: dict[str, Counter[float]] = field(default_factory=dict)
    pictures: list[Tensor] = field(default_factory=list)
    descriptions: list[str] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)


def spread(total: int, count: int) -> list[int]:
    """Up to `count` of `total` indices, evenly spread; all of them if `count` is 0."""
    chosen = min(total, count or total)
    return [number * total // chosen for number in range(chosen)]


def check_split(
    modality: Modality[Any], split: Split, count: int, seed: int, advance: Callable[[], None]
) -> SplitCheck:
    """Read up to `count` samples of a split, or all for 0; training samples are cropped as in training.

    advance: called after each sample. The first sample is not timed, because libraries are loaded with it.
    """
    samples = open_split(modality, split)
    indices = spread(len(samples), count)
    found = SplitCheck(split, len(samples))
    drawn = {indices[place] for place in spread(len(indices), PICTURES)} if split == "train" else set()
    for index in indices:
        started = time.perf_counter()
        try:
            sample = samples[index]
            view = _view(modality, split, sample.inputs, seed, index)
        except BadSampleError as error:
            found.bad.append(described(error, samples, index))
        except Exception as error:
            error.add_note(f"while reading sample {index} of the {split} split")
            raise
        else:
            if found.checked or len(indices) == 1:
                found.timed, found.seconds = found.timed + 1, found.seconds + time.perf_counter() - started
            _count(found, sample)
            if index in drawn:
                _draw(found, modality, sample, view)
        found.checked += 1
        advance()
    return found


def _count(found: SplitCheck, sample: Sample) -> None:
    found.sizes[size_of(sample.inputs)] += 1
    for name, label in sample.labels.items():
        if not isinstance(label, Tensor) or label.numel() == 1:
            found.labels.setdefault(name, Counter())[float(label)] += 1


def _draw(found: SplitCheck, modality: Modality[Any], sample: Sample, view: Any) -> None:
    picture = modality.picture(view)
    if picture is None:
        return
    found.pictures.append(picture)
    if isinstance(modality, MatchedModality) and len(found.descriptions) < _DESCRIBED:
        found.descriptions.append(" | ".join(modality.descriptions(sample.inputs)))


def _view(modality: Modality[Any], split: Split, inputs: Any, seed: int, index: int) -> Any:
    if split != "train":
        return modality.evaluation_view(inputs)
    view = modality.loader_view(inputs, seeded("view", seed, index))  # the way of training, as it may refuse a sample
    return tree_map(itemgetter(0), modality.to_network(collated([view])))


def size_of(inputs: Any) -> Size:
    """The size of stored inputs: the facts of a video, or the shape of the first tensor."""
    info = getattr(inputs, "info", None)
    if dataclasses.is_dataclass(info):
        facts = {each.name: getattr(info, each.name) for each in dataclasses.fields(info)}
        return tuple((name, value) for name, value in facts.items() if isinstance(value, int | float))
    fields = [getattr(inputs, each.name) for each in _fields(inputs)] or [inputs]
    shapes = (tuple(leaf.shape) for leaf in tree_leaves(fields) if hasattr(leaf, "shape"))
    return tuple(("", length) for length in next(shapes, ()))


def _fields(inputs: Any) -> Sequence[Any]:
    return dataclasses.fields(inputs) if dataclasses.is_dataclass(inputs) else ()
