"""Sources of images: folders, tar shards, and data sets of torchvision."""

from functools import partial
from pathlib import Path

from jepa.modality import Split
from modalities.storage.folders import FileKind, open_folder
from modalities.storage.images import check_min_side, decode_image, image_extensions, installable_extensions
from modalities.storage.opened import Opened
from modalities.storage.pixels import AS_STORED, PixelSettings
from modalities.storage.shards import open_shards
from modalities.storage.sources import SHARDS, by_ending
from modalities.storage.splits import SPLIT_SEED, StoredSplit
from modalities.storage.torchvision_sets import Arguments, open_torchvision

FILES = ("folder", "webdataset")  # other sources are torchvision sets

_ENDINGS = (*image_extensions(), *(ending for ending, _ in installable_extensions()))
EVIDENCE = (by_ending("images", "folder", *_ENDINGS), SHARDS)


def open_source(
    source: str,
    root: Path,
    split: Split,
    *,
    min_side: int,
    pixels: PixelSettings = AS_STORED,
    arguments: Arguments | None = None,
    opened: Opened | None = None,
    labels: bool = True,
) -> StoredSplit:
    """One split of the images at `root`: samples whose inputs are uint8 [3, H, W], RGB, and the class names.

    source: "folder", "webdataset" (tar shards), or the name of a class in torchvision.datasets.
    min_side: pixels; a large JPEG may be decoded at a fraction of its size, but no side falls below this.
    pixels: how stored values become colours.
    arguments: of the constructor of a torchvision set.
    opened: what other splits have listed already. labels: whether to read classes.
    """
    check_min_side(min_side)
    kind = FileKind("images", image_extensions(), installable=installable_extensions())
    decode = partial(decode_image, min_side=min_side, pixels=pixels)
    match source:
        case "folder":
            return open_folder(root, split, kind, decode, SPLIT_SEED, labels, opened)
        case "webdataset":
            return StoredSplit(*open_shards(root, split, kind, decode, opened, labels))
        case _:
            return open_torchvision(source, root, split, pixels, arguments, opened, labels)
