"""The image classification data sets of torchvision, by class name."""

import inspect
import operator
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torchvision
from PIL import Image

from jepa.modality import BadSampleError, Sample, Split
from modalities.storage.images import image_tensor
from modalities.storage.pixels import AS_STORED, PixelSettings
from modalities.storage.splits import StoredSplit, carved_split, split_source

_SPLIT_ARGUMENTS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "trainval", "train-standard"),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}


class TorchvisionImages:
    """Selected items of a torchvision data set; a negative label means unlabelled."""

    def __init__(self, dataset: Any, indices: Sequence[int], pixels: PixelSettings = AS_STORED) -> None:
        self.dataset, self.pixels = dataset, pixels
        self.indices = np.array(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        item = int(self.indices[index])
        try:
            image, label = self.dataset[item]
            pixels, number = image_tensor(image, self.pixels), operator.index(label)
        except Exception as error:  # data sets and Pillow raise nearly any type for a broken file
            raise BadSampleError(f"{type(self.dataset).__name__}[{item}]", str(error)) from error
        return Sample(pixels, {"class": number} if number >= 0 else {})


def open_torchvision(
    name: str, root: Path, split: Split, seed: int | None, pixels: PixelSettings = AS_STORED
) -> StoredSplit:
    """One split of `torchvision.datasets.<name>` stored below `root`, and its class names.

    Splits that the data set lacks are carved from its training split (storage.splits). Nothing is downloaded.
    """
    dataset_class = _dataset_class(name)
    stored = _stored_splits(dataset_class)
    source, carve = split_source(stored, split)
    dataset = _build(dataset_class, root, stored[source])
    _check_items(dataset)
    indices = [item for item in range(len(dataset)) if not carve or carved_split(str(item), carve, seed) == split]
    return StoredSplit(TorchvisionImages(dataset, indices, pixels), _class_names(dataset))


def _dataset_class(name: str) -> type:
    """The class of that name; raises ValueError for an unknown name, or a class that needs more than a root."""
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
    needed = [
        parameter.name
        for parameter in inspect.signature(classes[name]).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind is not parameter.VAR_KEYWORD
        and parameter.name not in ("root", "split")
    ]
    if needed:
        raise ValueError(f"torchvision's {name} cannot be opened by name: it also needs {', '.join(needed)}")
    found_class: type = classes[name]
    return found_class


def _stored_splits(dataset_class: type) -> dict[Split, Mapping[str, Any]]:
    """The splits of a data set, with the constructor's arguments for each."""
    parameters = inspect.signature(dataset_class).parameters
    if "train" in parameters:
        return {"train": {"train": True}, "test": {"train": False}}
    if "split" not in parameters:
        return {"train": {}}
    found: dict[Split, Mapping[str, Any]] = {}
    for split, names in _SPLIT_ARGUMENTS.items():
        accepted = [name for name in names if _accepts(dataset_class, name)]
        if accepted:
            found[split] = {"split": accepted[0]}
    if "train" not in found:
        raise ValueError(f"torchvision's {dataset_class.__name__} has no training split of images")
    return found


def _accepts(dataset_class: type, split: str) -> bool:
    """Whether a data set has a split of that name; torchvision checks the name before it opens any file."""
    try:
        dataset_class(Path(os.devnull, "nowhere"), split=split)
    except ValueError:
        return False
    except Exception:  # the name was accepted; the files are missing, as expected
        return True
    return True


def _build(dataset_class: type, root: Path, arguments: Mapping[str, Any]) -> Any:
    parameters = inspect.signature(dataset_class).parameters
    location = {"root": str(root)} if "root" in parameters else {}
    offline = {"download": False} if "download" in parameters else {}
    try:
        return dataset_class(**location, **arguments, **offline)
    except (OSError, RuntimeError) as error:
        call = ", ".join([f"{str(root)!r}", *(f"{key}={value!r}" for key, value in arguments.items()), "download=True"])
        advice = f'python -c "import torchvision; torchvision.datasets.{dataset_class.__name__}({call})"'
        raise FileNotFoundError(
            f"torchvision's {dataset_class.__name__} is not below {root}: {error}"
            + (f"; to download it: {advice}" if offline else "")
        ) from error


def _check_items(dataset: Any) -> None:
    """Raise ValueError unless each item is an image and the number of its class."""
    name = type(dataset).__name__
    if len(dataset) == 0:
        raise ValueError(f"torchvision's {name} is empty")
    try:
        item = dataset[0]
    except Exception:  # a broken file; it is counted as a bad sample when it is read
        return
    kinds = [type(part).__name__ for part in item] if isinstance(item, tuple) else [type(item).__name__]
    if len(kinds) != 2 or not isinstance(item[0], Image.Image) or not _is_whole_number(item[1]):
        raise ValueError(f"items of torchvision's {name} are ({', '.join(kinds)}); an image and a class are needed")


def _is_whole_number(label: object) -> bool:
    try:
        operator.index(label)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # such as a tensor of several numbers
        return False
    return True


def _class_names(dataset: Any) -> tuple[str, ...]:
    """Class names if the data set has them, otherwise numbers."""
    names = getattr(dataset, "classes", None)
    if names:
        return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)
    for attribute in ("targets", "labels", "y"):
        labels = getattr(dataset, attribute, None)
        if labels is not None:
            return tuple(map(str, range(int(max(labels)) + 1)))
    return tuple(map(str, range(max(operator.index(dataset[item][1]) for item in range(len(dataset))) + 1)))
