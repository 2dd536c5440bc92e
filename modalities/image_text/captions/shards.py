"""Captioned images in tar files, as written by the webdataset package and img2dataset."""

import json
from pathlib import Path

from jepa.modality import BadSampleError, Label, Sample, Split
from modalities.image_text.captions.rules import NO_CAPTION, MalformedError, captions_of
from modalities.storage.captioned import CaptionedImage
from modalities.storage.folders import FileKind
from modalities.storage.images import Decode, image_extensions, installable_extensions
from modalities.storage.opened import Opened
from modalities.storage.shards import ShardSamples, open_shards
from modalities.storage.splits import StoredSplit

_COMPANIONS = (".txt", ".json")


class CaptionedShards:
    """Images of tar files with the captions in their companions."""

    def __init__(self, images: ShardSamples) -> None:
        self.images, self.summary = images, images.summary

    def name_of(self, index: int) -> str:
        """The name of the image."""
        return self.images.name_of(index)

    def digest(self) -> str:
        """The digest of the shards."""
        return self.images.digest()

    def __len__(self) -> int:
        return len(self.images)

    def labels_of(self, index: int) -> dict[str, Label]:
        """The labels of a sample, without reading it."""
        return self.images.labels_of(index)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[index]
        try:
            captions = _captions(*self.images.companions(index))
        except MalformedError as error:
            raise BadSampleError(self.images.source(index), str(error)) from error
        return Sample(CaptionedImage(image.inputs, captions), image.labels)


def open_captioned_shards(
    root: Path, split: Split, decode: Decode, opened: Opened | None = None, labels: bool = True
) -> StoredSplit:
    """The captioned images of one split in the tar files at `root`, and the class names, () if unlabelled.

    The captions of an image are in `<key>.txt` and in `<key>.json` (captions.rules.captions_of). Splits, labels and
    damage are as in storage.shards.open_shards, but carved samples are always held out from training.
    """
    kind = FileKind("images", image_extensions(), companions=_COMPANIONS, installable=installable_extensions())
    images, classes = open_shards(root, split, kind, decode, opened, labels)
    if not images.found.columns["has_companions"].any():
        files = ", ".join(str(path) for path in images.paths[:3])
        raise ValueError(f"no captions in {files}; they belong into a .txt or .json with the key of the image")
    return StoredSplit(CaptionedShards(images), classes)


def _captions(text: bytes, fields: bytes) -> tuple[str, ...]:
    """Contents of .txt and .json, possibly empty  ->  at least one caption, without duplicates."""
    try:
        caption = {"caption": text.decode("utf-8-sig")}
        content = json.loads(fields.decode("utf-8-sig")) if fields else {}
    except UnicodeDecodeError as error:
        raise MalformedError("a caption is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from error
    captions = captions_of(caption) + (captions_of(content) if isinstance(content, dict) else [])
    if not captions:
        raise MalformedError(NO_CAPTION)
    return tuple(dict.fromkeys(captions))
