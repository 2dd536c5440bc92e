"""Where captioned images come from: a list of files, tar shards, or the files of COCO."""

from pathlib import Path

from jepa.modality import Split
from modalities.image_text.captions.coco import open_coco
from modalities.image_text.captions.lists import open_lists
from modalities.image_text.captions.shards import open_captioned_shards
from modalities.storage.images import check_min_side
from modalities.storage.splits import StoredSplit

SOURCES = ("folder", "webdataset", "coco")


def open_captions(source: str, root: Path, split: Split, *, min_side: int, seed: int = 0) -> StoredSplit:
    """One split of the captioned images at `root`.

    source: "folder" (a list of files and captions: caption_lists.open_lists), "webdataset" (tar shards:
    caption_shards.open_captioned_shards) or "coco" (caption_coco.open_coco). What becomes of a caption: caption_rules.
    A caption that is not text, an image without a caption, or one that is not there, is a bad sample when it is read.
    min_side: pixels that suffice for the shorter side: a large JPEG may be decoded at a fraction of its size.
    seed: for the choice of the images that are carved from the training set, where a split is not stored apart.
    """
    check_min_side(min_side)
    match source:
        case "folder":
            return open_lists(root, split, min_side, seed)
        case "webdataset":
            return open_captioned_shards(root, split, min_side, seed)
        case "coco":
            return open_coco(root, split, min_side, seed)
        case _:
            raise ValueError(f"unknown source '{source}' of captioned images; there are {', '.join(SOURCES)}")
