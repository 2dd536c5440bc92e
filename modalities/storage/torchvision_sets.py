"""The image data sets of torchvision, by class name."""

import inspect
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torchvision
from PIL import Image

from jepa.data.summary import SplitSummary
from jepa.modality import BadSampleError, Sample, Split
from modalities.storage.images import image_tensor
from modalities.storage.labels import NO_CLASSES, UNLABELLED, Classes, classes_of
from modalities.storage.opened import Opened
from modalities.storage.pixels import AS_STORED, PixelSettings
from modalities.storage.splits import StoredSplit, carved_split, split_source

_SPLIT_ARGUMENTS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "trainval", "train-standard"),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
_OURS = {"root", "train", "what", "download", "transform", "target_transform", "transforms", "loader", "is_valid_file"}
Arguments = Mapping[str, str | int | float | bool | tuple[int | float, ...]]  # of a constructor


class TorchvisionImages:
    """Selected items of a torchvision data set; a negative label, or None, means unlabelled."""

    def __init__(
        self,
        dataset: Any,
        indices: Sequence[int],
        classes: Classes,
        pixels: PixelSettings,
        summary: SplitSummary | None = None,
    ) -> None:
        self.dataset, self.classes, self.pixels, self.summary = dataset, classes, pixels, summary
        self.indices = np.array(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        item = int(self.indices[index])
        try:
            parts = _parts(self.dataset[item])
            pixels = image_tensor(parts[0], self.pixels)
            number = self.classes.number(_written(parts[1])) if self.classes.names else UNLABELLED
        except Exception as error:  # data sets and Pillow raise nearly any type for a broken file
            raise BadSampleError(self.name_of(index), str(error)) from error
        return Sample(pixels, {} if number == UNLABELLED else {"class": number})

    def name_of(self, index: int) -> str:
        """The data set and the index of an item in it."""
        return f"{type(self.dataset).__name__}[{int(self.indices[index])}]"


def open_torchvision(
    name: str,
    root: Path,
    split: Split,
    pixels: PixelSettings = AS_STORED,
    arguments: Arguments | None = None,
    opened: Opened | None = None,
    labels: bool = True,
) -> StoredSplit:
    """One split of `torchvision.datasets.<name>` stored below `root`, and its class names.

    arguments: more arguments of the constructor. `split` chooses what is trained on, unless the data set has several
    versions that each have a training and a test set, as EMNIST has; then it chooses the version.
    Splits that the data set lacks are carved from its training split (storage.splits), and held out from training
    unless `labels` is false, which ignores the labels. Nothing is downloaded.
    """
    dataset_class = _dataset_class(name, arguments or {})
    stored = _stored_splits(dataset_class, arguments or {})
    source, carve = split_source(stored, split)
    opened = opened or Opened()
    dataset = opened.once((name, source), lambda: _build(dataset_class, root, stored[source]))
    _check_items(dataset, labels)
    classes = _named_classes(dataset) if labels else NO_CLASSES
    if classes is None:
        training_set = opened.once((name, "train"), lambda: _build(dataset_class, root, stored["train"]))
        classes = classes_of(map(_written, _labels(training_set)))
    splits = [carved_split(str(item), carve) if carve else split for item in range(len(dataset))]
    keeps_all = split == "train" and not labels
    indices = [item for item, each in enumerate(splits) if keeps_all or each == split]
    sizes = {each: splits.count(each) for each in carve if labels}
    summary = SplitSummary("images", f"of torchvision's {name} below {root}", classes.names)
    samples = TorchvisionImages(dataset, indices, classes, pixels, summary.of_split(split, carve, sizes))
    return StoredSplit(samples, classes.names)


def _dataset_class(name: str, arguments: Arguments) -> type:
    """The class of that name; raises ValueError for an unknown name, or arguments that it does not have or lacks."""
    base = torchvision.datasets.VisionDataset
    classes = {
        each: found
        for each in torchvision.datasets.__all__
        if inspect.isclass(found := getattr(torchvision.datasets, each))
        and issubclass(found, base)
        and found is not base
    }
    if name not in classes:
        lower = {each.lower(): each for each in classes}
        near = [lower[each] for each in get_close_matches(name.lower(), lower, n=3)]
        raise ValueError(
            f"unknown data source '{name}'{', did you mean ' + ' or '.join(near) + '?' if near else ';'} "
            f"a source is folder, webdataset or the name of a class in torchvision.datasets"
        )
    found_class: type = classes[name]
    parameters = _parameters(found_class)
    allowed = [each for each in parameters if each not in _OURS]
    for each in arguments:
        if each not in allowed:
            raise ValueError(f"data.torchvision.{each}: torchvision's {name} takes {', '.join(allowed) or 'nothing'}")
    for each in allowed:
        if parameters[each].default is inspect.Parameter.empty and each not in arguments:
            raise ValueError(f"torchvision's {name} also needs data.torchvision.{each}{_choices(found_class, each)}")
    return found_class


def _parameters(dataset_class: type) -> dict[str, inspect.Parameter]:
    """The parameters of the constructor, with those that **kwargs passes on to base classes."""
    found: dict[str, inspect.Parameter] = {}
    for each in dataset_class.__mro__:
        own = inspect.signature(vars(each).get("__init__", lambda **_: None)).parameters
        named = {key: value for key, value in own.items() if value.kind is not inspect.Parameter.VAR_KEYWORD}
        found = {**named, **found}
        if len(named) == len(own):
            break
    return {key: value for key, value in found.items() if key != "self"}


def _choices(dataset_class: type, parameter: str) -> str:
    """The values that a parameter takes, if torchvision checks them before it opens files."""
    try:
        dataset_class(Path(os.devnull, "nowhere"), **{parameter: "?"})
    except ValueError as error:
        values = str(error).partition("Valid values are ")[2].strip("{()}. ")
        return f": {values}" if values else ""
    except Exception:  # about another parameter or missing files
        return ""
    return ""


def _stored_splits(dataset_class: type, arguments: Arguments) -> dict[Split, Arguments]:
    """The splits of a data set, with the constructor's arguments for each."""
    parameters = _parameters(dataset_class)
    if "train" in parameters:
        return {"train": {**arguments, "train": True}, "test": {**arguments, "train": False}}
    if "split" not in parameters:
        return {"train": arguments}
    found: dict[Split, Arguments] = {}
    for split, names in _SPLIT_ARGUMENTS.items():
        choices = [{**arguments, "split": name} for name in names]
        if accepted := [each for each in choices if _accepts(dataset_class, each)]:
            found[split] = accepted[0]
    chosen = str(arguments.get("split", ""))
    if chosen in {each["split"] for split, each in found.items() if split != "train"}:
        raise ValueError(f"data.torchvision.split={chosen} would train on the {chosen} split")
    if chosen:
        apart = {split: each for split, each in found.items() if not _holds(chosen, str(each["split"]))}
        return {**apart, "train": arguments}
    if "train" not in found:
        choice = _choices(dataset_class, "split")
        raise ValueError(f"torchvision's {dataset_class.__name__} needs data.torchvision.split{choice}")
    return found


def _holds(chosen: str, held_out: str) -> bool:
    """Whether a split such as `trainval`, or `10fold` of all images, contains a held-out one."""
    return held_out in chosen or chosen == "10fold"


def _accepts(dataset_class: type, arguments: Arguments) -> bool:
    """Whether a data set accepts arguments, which torchvision checks before it opens any file."""
    try:
        dataset_class(Path(os.devnull, "nowhere"), **arguments)
    except ValueError:
        return False
    except Exception:  # the name was accepted; the files are missing, as expected
        return True
    return True


def _build(dataset_class: type, root: Path, arguments: Arguments) -> Any:
    name, parameters = dataset_class.__name__, _parameters(dataset_class)
    location = {"root": str(root)} if "root" in parameters else {}
    offline = {"download": False} if "download" in parameters else {}
    try:
        return dataset_class(**location, **arguments, **offline)
    except (OSError, RuntimeError) as error:
        call = ", ".join([f"{str(root)!r}", *(f"{key}={value!r}" for key, value in arguments.items()), "download=True"])
        advice = f'python -c "import torchvision; torchvision.datasets.{name}({call})"'
        raise FileNotFoundError(
            f"torchvision's {name} is not below {root}: {error}" + (f"; to download it: {advice}" if offline else "")
        ) from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"torchvision's {name}: {error}") from error


def _parts(item: Any) -> Sequence[Any]:
    return item if isinstance(item, tuple) else (item,)


def _check_items(dataset: Any, labels: bool) -> None:
    """Raise ValueError unless each item is an image and the number of its class, or begins with an image."""
    name = type(dataset).__name__
    if len(dataset) == 0:
        raise ValueError(f"torchvision's {name} is empty")
    try:
        parts = _parts(dataset[0])
    except Exception:  # a broken file; it is counted as a bad sample when it is read
        return
    kinds = ", ".join(type(part).__name__ for part in parts)
    if not isinstance(parts[0], Image.Image):
        raise ValueError(f"items of torchvision's {name} are ({kinds}); they must begin with an image")
    if labels and (len(parts) != 2 or not _is_label(parts[1])):
        choice = next((each for each in _parameters(type(dataset)) if each.startswith("target_type")), None)
        hint = f", data.torchvision.{choice} chooses another label" if choice else ""
        raise ValueError(
            f"items of torchvision's {name} are ({kinds}); an image and a class are needed: data.labels=none reads "
            f"the images alone{hint}"
        )


def _is_label(label: object) -> bool:
    try:
        _written(label)
    except (TypeError, ValueError):  # such as a tensor of several numbers
        return False
    return True


def _written(label: Any) -> str:
    """A label as text; negative numbers and None mean unlabelled."""
    number = UNLABELLED if label is None else operator.index(label)
    return str(max(number, UNLABELLED))


def _named_classes(dataset: Any) -> Classes | None:
    """The classes of a data set that names them; none if all of it is unlabelled."""
    match type(dataset).__name__:
        case "PCAM":
            names: Iterable[Any] = ("normal", "tumour")
        case "INaturalist" if dataset.target_type == ["full"]:
            names = dataset.all_categories
        case "INaturalist" if len(dataset.target_type) == 1:
            numbers = dataset.categories_index[dataset.target_type[0]]
            names = sorted(numbers, key=numbers.__getitem__)
        case _:
            names = getattr(dataset, "classes", None) or ()
    texts = tuple(name if isinstance(name, str) else ", ".join(name) for name in names)
    labels = getattr(dataset, "labels", None)
    if labels is not None and len(labels) and np.max(np.asarray(labels)) < 0:
        return Classes((), {})
    return Classes(texts, {str(number): number for number in range(len(texts))}) if texts else None


def _labels(dataset: Any) -> Iterable[Any]:
    """The labels of all items, without their images where the data set stores them apart."""
    for attribute in ("targets", "labels", "y", "_labels"):
        labels = getattr(dataset, attribute, None)
        if labels is not None and len(labels) == len(dataset) and _is_label(labels[0]):
            return [labels[item] for item in range(len(labels))]
    for attribute in ("samples", "_samples"):
        samples = getattr(dataset, attribute, None)
        if samples is not None and len(samples) == len(dataset):
            return [label for _, label in samples]
    return (dataset[item][1] for item in range(len(dataset)))
