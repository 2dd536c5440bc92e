"""Where videos come from: folders, lists, tar shards, folders of frames, arrays."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from jepa.modality import Samples, Split
from modalities.storage.folders import FileKind, open_folder
from modalities.storage.images import image_extensions
from modalities.storage.shards import open_shards
from modalities.video.decode.video import VIDEO_EXTENSIONS, Decoder, EncodedVideo, usable_decoders
from modalities.video.frames import ArrayFile, FrameFolder
from modalities.video.lists import open_lists
from modalities.video.whole import WholeWhereSmall

Source = Literal["folder", "csv", "webdataset", "frames", "npy"]

_ENCODED = FileKind("videos", VIDEO_EXTENSIONS)
_ARRAYS = FileKind("videos", (".npy",))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How videos are read.

    decoder: which library, `auto` for the fastest that there is. short_side: pixels that suffice for the shorter side
    of a frame, None for all there are. whole_mb: a video of which all frames take no more megabytes, once reduced, is
    decoded whole, so that it may stay in memory; with 0 none is, and files are opened only to read a clip. stored_fps:
    frames a second where a folder of frames or an array cannot tell.
    """

    decoder: Decoder = "auto"
    short_side: int | None = None
    whole_mb: float = 8.0
    stored_fps: float = 25.0


@dataclass(frozen=True)
class VideoSource:
    """One split of a source: `samples[i].inputs` is a StoredVideo; `labels` is {"class": int}, {} if unknown."""

    samples: Samples
    classes: tuple[str, ...]  # by label; () where there are no labels


def open_source(source: Source, root: Path, split: Split, reading: Reading, seed: int = 0) -> VideoSource:
    """One split of the videos at `root`.

    source: "folder" (of class folders, or flat), "csv" (files that list paths and labels), "webdataset" (tar shards),
    "frames" (a folder of images for each video) or "npy" (an array for each video); the last two are laid out in
    folders as videos are.
    seed: for the choice of what is carved from the training set, where a split is not stored apart.
    """
    if reading.short_side is not None and reading.short_side < 1:
        raise ValueError(f"short_side is {reading.short_side}; at least 1 pixel is needed")
    if source in ("folder", "csv", "webdataset"):
        usable_decoders(reading.decoder)  # says now what is missing, not at the first sample
    samples, classes = _opened(source, root, split, reading, seed)
    if reading.whole_mb:
        samples = WholeWhereSmall(samples, reading.short_side, reading.whole_mb)
    return VideoSource(samples, classes)


def _opened(source: Source, root: Path, split: Split, reading: Reading, seed: int) -> tuple[Samples, tuple[str, ...]]:
    encoded = partial(EncodedVideo, decoder=reading.decoder)
    match source:
        case "folder":
            return open_folder(root, split, _ENCODED, encoded, seed)
        case "csv":
            return open_lists(root, split, VIDEO_EXTENSIONS, encoded, seed)
        case "webdataset":
            return open_shards(root, split, _ENCODED, encoded, seed)
        case "frames":
            kind = FileKind("folders of frames", image_extensions(), whole_folders=True)
            return open_folder(root, split, kind, partial(FrameFolder, fps=reading.stored_fps), seed)
        case "npy":
            return open_folder(root, split, _ARRAYS, partial(ArrayFile, fps=reading.stored_fps), seed)
        case _:
            raise ValueError(f"no source '{source}' of videos; there are {', '.join(get_args(Source))}")
