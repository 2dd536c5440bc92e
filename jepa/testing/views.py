"""Views: tensors of one shape, functions of the sample and the generator, and what evaluation makes of them."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_leaves

from jepa.evaluate.table import RESERVED
from jepa.modality import BadSampleError, Modality
from jepa.testing.compare import form, global_seed, same
from jepa.testing.samples import first_samples


def check_views(modality: Modality[Any]) -> Iterator[str]:
    """Training and evaluation views can be batched, repeat themselves, and leave what is stored as it is."""
    makers: dict[str, Callable[[Any], Any]] = {
        "training_view": lambda inputs: modality.training_view(inputs, Generator().manual_seed(0)),
        "evaluation_view": modality.evaluation_view,
    }
    forms: dict[str, str] = {"example_view": form(modality.example_view())}
    for name, make in makers.items():
        views = {}
        for index, sample in first_samples(modality, "train").items():
            try:
                flaws, views[index] = _look(make, sample.inputs)
            except BadSampleError:
                continue
            if flaws:
                yield f"{name} {flaws}"
                return
        if not views:
            yield f"{name}: of none of the first samples of dataset('train') a view can be made"
            return
        first = next(iter(views))
        forms[name] = form(views[first])
        for index, view in views.items():
            if form(view) != forms[name]:
                yield f"{name} makes {forms[name]} of sample {first}, but {form(view)} of sample {index}"
                break
    if len(set(forms.values())) > 1:
        told = ", ".join(f"{name} {shape}" for name, shape in forms.items())
        yield f"views of a sample differ in form, so that one network cannot take them: {told}"


def _look(make: Callable[[Any], Any], inputs: Any) -> tuple[str, Any]:
    """What is wrong with a view, and the view."""
    before = _copy(inputs)
    with global_seed(1):
        view = make(inputs)
    if before is not None and not same(before, inputs):
        return "changes the stored inputs, which stay in memory and are used again; let it work on a copy", view
    others = [leaf for leaf in tree_leaves(view) if not isinstance(leaf, Tensor)]
    if others:
        return f"gives a {type(others[0]).__name__}; it has to be a tensor, or tuples and dicts of tensors", view
    if not all(leaf.isfinite().all() for leaf in tree_leaves(view) if leaf.is_floating_point()):
        return "gives values that are not finite", view
    with global_seed(2):
        again = make(inputs)
    if not same(view, again):
        return (
            "gives another view when it is called again with the same arguments; "
            "all that is random has to come from the generator that it is given",
            view,
        )
    return "", view


def _copy(inputs: Any) -> Any:
    """What a view may not change; None where it cannot be copied, such as a file that a view decodes."""
    try:
        return copy.deepcopy(inputs)
    except Exception:
        return None


def check_evaluation_views(modality: Modality[Any]) -> Iterator[str]:
    """As many views of every sample, each of the form of the evaluation view."""
    counts, wanted = {}, form(modality.example_view())
    for index, views in _views(modality).items():
        counts[index] = len(views)
        for view in views:
            if form(view) != wanted:
                yield f"evaluation_views gives {form(view)} for sample {index}, evaluation_view {wanted}"
                return
    if len(set(counts.values())) > 1 or 0 in counts.values():
        yield f"evaluation_views has to give as many views of every sample, at least one; by sample it gives {counts}"
    with global_seed(1):
        first = _views(modality)
    with global_seed(2):
        again = _views(modality)
    if not same(first, again):
        yield "evaluation_views gives other views when it is called again; the inputs alone have to tell them"


def check_baselines(modality: Modality[Any]) -> Iterator[str]:
    """Vectors of one length, among them the raw input."""
    shapes: dict[str, torch.Size] = {}
    for index, views in _views(modality).items():
        if type(modality).baselines is Modality.baselines and not isinstance(views[0], Tensor):
            what = type(views[0]).__name__
            yield f"baselines: by default it flattens a tensor, and a view is a {what}; write `baselines` of your own"
            return
        floors = modality.baselines(views[0])
        if taken := sorted({*floors} & RESERVED):
            yield f"baselines: '{taken[0]}' is the name of another column of the results; give it one of its own"
            return
        if "raw_input" not in floors:
            yield f"baselines has no 'raw_input' to compare with, only: {', '.join(floors) or 'nothing'}"
            return
        for name, vector in floors.items():
            if not isinstance(vector, Tensor) or vector.dim() != 1:
                yield f"baselines: '{name}' is {form(vector)}; it has to be a vector [F]"
                return
            if not vector.double().isfinite().all():
                yield f"baselines: '{name}' of sample {index} is not finite"
                return
            if shapes.setdefault(name, vector.shape) != vector.shape:
                yield f"baselines: '{name}' has {len(vector)} values for sample {index}, {shapes[name][0]} for another"
                return


def check_picture(modality: Modality[Any]) -> Iterator[str]:
    """None, or bytes of red, green and blue, that move where the grid has a third axis."""
    views = next(iter(_views(modality).values()))
    picture = modality.picture(views[0])
    if picture is None:
        return
    if not isinstance(picture, Tensor):
        yield f"picture is a {type(picture).__name__}; it has to be None or a tensor, uint8 [H, W, 3]"
        return
    moving = picture.dim() == 4 and len(modality.grid) == 3
    if picture.dtype != torch.uint8 or picture.shape[-1] != 3 or not (picture.dim() == 3 or moving):
        yield f"picture is {form(picture)}; it has to be None or uint8 [H, W, 3], of 3 axes also [T, H, W, 3]"


def _views(modality: Modality[Any]) -> dict[int, list[Any]]:
    found = {}
    for index, sample in first_samples(modality, "train").items():
        try:
            found[index] = list(modality.evaluation_views(sample.inputs))
        except BadSampleError:
            continue
    return found
