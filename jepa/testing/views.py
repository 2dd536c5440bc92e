"""Views: tensors of one shape, functions of sample and generator; their baselines and pictures."""

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_flatten, tree_leaves
from torch.utils.data import default_collate

from jepa.evaluate.table import RESERVED
from jepa.modality import BadSampleError, Modality
from jepa.testing.compare import describe, global_seed, same
from jepa.testing.samples import first_samples


def check_views(modality: Modality[Any]) -> Iterator[str]:
    """Training and evaluation views can be batched, are reproducible, and do not change the stored inputs."""
    makers: dict[str, Callable[[Any], Any]] = {
        "training_view": lambda inputs: modality.training_view(inputs, Generator().manual_seed(0)),
        "evaluation_view": modality.evaluation_view,
    }
    forms: dict[str, str] = {"example_view": describe(modality.example_view())}
    for name, make in makers.items():
        views = {}
        for index, sample in first_samples(modality, "train").items():
            try:
                flaw, views[index] = _checked_view(make, sample.inputs)
            except BadSampleError:
                continue
            if flaw:
                yield f"{name} {flaw}"
                return
        if not views:
            yield f"{name} fails for all of the first samples of dataset('train')"
            return
        first = next(iter(views))
        forms[name] = describe(views[first])
        for index, view in views.items():
            if describe(view) != forms[name]:
                yield f"{name} returns {forms[name]} for sample {first}, but {describe(view)} for sample {index}"
                break
    if len(set(forms.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in forms.items())
        yield f"views of a sample differ in shape or type, so that one network cannot take them: {listed}"


def _checked_view(make: Callable[[Any], Any], inputs: Any) -> tuple[str, Any]:
    """What is wrong with a view, empty if nothing is, and the view."""
    before = None
    with suppress(Exception):  # inputs that cannot be copied, such as an open file, are not compared
        before = copy.deepcopy(inputs)
    with global_seed(1):
        view = make(inputs)
    if before is not None and not same(before, inputs):
        return "changes the stored inputs, which stay in memory and are used again; work on a copy", view
    others = [leaf for leaf in tree_leaves(view) if not isinstance(leaf, Tensor)]
    if others:
        return f"returns a {type(others[0]).__name__}; expected a tensor, or tuples and dicts of tensors", view
    if not all(leaf.isfinite().all() for leaf in tree_leaves(view) if leaf.is_floating_point()):
        return "returns values that are not finite", view
    with global_seed(2):
        again = make(inputs)
    if not same(view, again):
        flaw = "returns another view when it is called again with the same arguments"
        return f"{flaw}; draw all random numbers from the generator that it receives", view
    return "", view


def check_loader_views(modality: Modality[Any]) -> Iterator[str]:
    """`to_network` makes training views of a batch of loader views, and keeps training views."""
    if type(modality).loader_view is Modality.loader_view:
        return
    seeds = range(2)
    for index, sample in first_samples(modality, "train").items():
        with suppress(BadSampleError):
            loaded = [modality.loader_view(sample.inputs, Generator().manual_seed(seed)) for seed in seeds]
            views = [modality.training_view(sample.inputs, Generator().manual_seed(seed)) for seed in seeds]
            if describe(modality.example_loader_view()) != describe(loaded[0]):
                found = f"{describe(loaded[0])} for sample {index}"
                yield f"loader_view returns {found}, but example_loader_view {describe(modality.example_loader_view())}"
            for name, given in {"loader_view": loaded, "training_view": views}.items():
                batch = default_collate(given)
                if not _close(modality.to_network(batch), default_collate(views)):
                    yield f"to_network does not return the training views for a batch of {name} of sample {index}"
            return


def _close(one: Any, other: Any) -> bool:
    """Whether two batches have the same structure, shapes and types, and values that differ by rounding at most."""
    (first, form), (second, other_form) = tree_flatten(one), tree_flatten(other)
    if form != other_form or describe(first) != describe(second):
        return False
    return all(torch.allclose(a, b, 1e-4, 1e-5, equal_nan=True) for a, b in zip(first, second, strict=True))


def check_evaluation_views(modality: Modality[Any]) -> Iterator[str]:
    """Every sample has the same number of views, all with the shape and type of the evaluation view."""
    counts, wanted = {}, describe(modality.example_view())
    for index, views in _views(modality).items():
        counts[index] = len(views)
        for view in views:
            if describe(view) != wanted:
                yield f"evaluation_views returns {describe(view)} for sample {index}, but evaluation_view {wanted}"
                return
    if len(set(counts.values())) > 1 or 0 in counts.values():
        yield f"evaluation_views must return as many views for every sample, at least one; it returns {counts}"
    with global_seed(1):
        first = _views(modality)
    with global_seed(2):
        again = _views(modality)
    if not same(first, again):
        yield "evaluation_views returns other views when it is called again; they may depend only on the inputs"


def check_baselines(modality: Modality[Any]) -> Iterator[str]:
    """Baselines are vectors of one length by name, among them the raw input."""
    shapes: dict[str, torch.Size] = {}
    for index, views in _views(modality).items():
        if type(modality).baselines is Modality.baselines and not isinstance(views[0], Tensor):
            what = type(views[0]).__name__
            yield f"baselines: the default flattens a tensor, but a view is a {what}; define `baselines`"
            return
        baselines = modality.baselines(views[0])
        if taken := sorted({*baselines} & RESERVED):
            yield f"baselines: '{taken[0]}' is the name of another column of the results; choose another name"
            return
        if "raw_input" not in baselines:
            yield f"baselines has no 'raw_input' to compare with, only: {', '.join(baselines) or 'nothing'}"
            return
        for name, vector in baselines.items():
            if not isinstance(vector, Tensor) or vector.dim() != 1:
                yield f"baselines: '{name}' is {describe(vector)}; expected a vector [F]"
                return
            if not vector.double().isfinite().all():
                yield f"baselines: '{name}' of sample {index} is not finite"
                return
            if shapes.setdefault(name, vector.shape) != vector.shape:
                yield f"baselines: '{name}' has {len(vector)} values for sample {index}, {shapes[name][0]} for another"
                return


def check_picture(modality: Modality[Any]) -> Iterator[str]:
    """None, or an RGB image; also a video if the grid has three axes."""
    views = next(iter(_views(modality).values()))
    picture = modality.picture(views[0])
    if picture is None:
        return
    if not isinstance(picture, Tensor):
        yield f"picture is a {type(picture).__name__}; expected None or a tensor, uint8 [H, W, 3]"
        return
    is_video = picture.dim() == 4 and len(modality.grid) == 3
    if picture.dtype != torch.uint8 or picture.shape[-1] != 3 or not (picture.dim() == 3 or is_video):
        yield f"picture is {describe(picture)}; expected None or uint8 [H, W, 3], with three axes also [T, H, W, 3]"


def _views(modality: Modality[Any]) -> dict[int, list[Any]]:
    found = {}
    for index, sample in first_samples(modality, "train").items():
        with suppress(BadSampleError):
            found[index] = list(modality.evaluation_views(sample.inputs))
    return found
