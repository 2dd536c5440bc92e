"""Where images come from: a folder, tar shards, or a data set of torchvision."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from jepa.modality import Samples, Split
from modalities.storage.folders import FileKind, open_folder
from modalities.storage.images import check_min_side, decode_image, image_extensions
from modalities.storage.shards import open_shards
from modalities.storage.torchvision_sets import open_torchvision


@dataclass(frozen=True)
class ImageSource:
    """One split of a source: `samples[i].inputs` is uint8 [3, H, W], RGB; `labels` is {"class": int}, {} if unknown."""

    samples: Samples
    classes: tuple[str, ...]  # by label; () where there are no labels


def open_source(source: str, root: Path, split: Split, *, min_side: int, seed: int = 0) -> ImageSource:
    """One split of the images at `root`.

    source: "folder", "webdataset" (tar shards), or the name of a class in torchvision.datasets.
    min_side: pixels that suffice for the shorter side: a large JPEG may be decoded at a fraction of its size.
    seed: for the choice of the images that are carved from the training set, where a split is not stored apart.
    """
    check_min_side(min_side)
    match source:
        case "folder":
            kind = FileKind("images", image_extensions())
            samples, classes = open_folder(root, split, kind, partial(decode_image, min_side=min_side), seed)
        case "webdataset":
            kind = FileKind("images", image_extensions())
            samples, classes = open_shards(root, split, kind, partial(_decode_member, min_side=min_side), seed)
        case _:
            samples, classes = open_torchvision(source, root, split, seed)
    return ImageSource(samples, classes)


def _decode_member(data: bytes, source: str, min_side: int) -> Tensor:
    return decode_image(data, min_side, source)
