"""Sources of captioned images: lists, tar shards, the files of COCO, and images without captions."""

from functools import partial
from pathlib import Path, PurePosixPath

from jepa.modality import Split
from modalities.image_text.captions.coco import open_coco
from modalities.image_text.captions.lists import open_lists
from modalities.image_text.captions.shards import open_captioned_shards
from modalities.storage.captioned import CaptionedImage
from modalities.storage.folders import FileKind, open_folder
from modalities.storage.images import Decode, check_min_side, decode_image, image_extensions
from modalities.storage.opened import Opened
from modalities.storage.pixels import AS_STORED, PixelSettings
from modalities.storage.sources import SHARDS, Evidence, by_ending
from modalities.storage.splits import SPLIT_SEED, StoredSplit

SOURCES = ("folder", "webdataset", "coco", "images")
_LISTS = (".jsonl", ".csv", ".tsv")


def _is_coco(path: PurePosixPath) -> bool:
    known = path.name.startswith("captions_") or (len(path.parts) == 1 and path.name.startswith("dataset"))
    return path.suffix == ".json" and known and path.parent.name in ("", "annotations")


EVIDENCE = (
    by_ending("lists of captions", "folder", *_LISTS, top_only=True, alone=(".txt",)),
    SHARDS,
    Evidence("captions of COCO", ("coco",), _is_coco),
)


def _uncaptioned(decode: Decode, path: Path) -> CaptionedImage:
    return CaptionedImage(decode(path), ("",))


def open_captions(
    source: str,
    root: Path,
    split: Split,
    *,
    min_side: int,
    pixels: PixelSettings = AS_STORED,
    opened: Opened | None = None,
    labels: bool = True,
) -> StoredSplit:
    """One split of the captioned images at `root`: samples whose inputs are CaptionedImage, and the class names.

    source: "folder" (a list of images and captions, see captions.lists), "webdataset" (tar shards, see
    captions.shards), "coco" (see captions.coco) or "images" (files at any depth, each with an empty caption).
    captions.rules says how captions are cleaned. A caption that is not text, and an image that is missing or has no
    caption in its list, are bad samples when they are read.
    min_side: pixels; a large JPEG may be decoded at a fraction of its size, but no side falls below this.
    pixels: how stored values become colours.
    opened: what other splits have listed already. labels: whether to read classes.
    """
    check_min_side(min_side)
    decode = partial(decode_image, min_side=min_side, pixels=pixels)
    match source:
        case "folder":
            return open_lists(root, split, decode, labels, opened)
        case "webdataset":
            return open_captioned_shards(root, split, decode, opened, labels)
        case "coco":
            return open_coco(root, split, decode, opened)
        case "images":
            kind = FileKind("images", image_extensions())
            return open_folder(root, split, kind, partial(_uncaptioned, decode), SPLIT_SEED, labels, opened)
        case _:
            raise ValueError(f"unknown source of captioned images '{source}'; allowed are {', '.join(SOURCES)}")
