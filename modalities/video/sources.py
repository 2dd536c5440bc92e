"""Sources of videos: folders, lists, tar shards, folders of frames, arrays."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from jepa.modality import LabelledSamples, Split
from modalities.storage.folders import FileKind, open_folder
from modalities.storage.images import image_extensions
from modalities.storage.listing import ending
from modalities.storage.opened import Opened
from modalities.storage.packed import PackedStrings, TakenStrings
from modalities.storage.pixels import AS_STORED, PixelSettings
from modalities.storage.shards import open_shards
from modalities.storage.sources import SHARDS, by_ending
from modalities.storage.splits import SPLIT_SEED, StoredSplit
from modalities.video.decode.stored import StoredVideo
from modalities.video.decode.video import VIDEO_EXTENSIONS, Decoder, EncodedVideo, usable_decoder
from modalities.video.frames import ArrayFile, FrameFolder, StillImage
from modalities.video.lists import open_lists
from modalities.video.whole import DecodedIfSmall

Source = Literal["folder", "csv", "webdataset", "frames", "npy"]

_ENCODED = FileKind("videos", VIDEO_EXTENSIONS)
_ARRAYS = FileKind("videos", (".npy",))

EVIDENCE = (
    by_ending("videos", "folder", *VIDEO_EXTENSIONS),
    by_ending("lists", "csv", ".csv", ".tsv", top_only=True, alone=(".txt",)),
    SHARDS,
    by_ending("images", "frames|folder", *image_extensions()),
    by_ending("arrays", "npy", ".npy"),
)


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How videos are read.

    decoder: the library; `auto` is PyAV. short_side: pixels to which the shorter side of frames is reduced, None for
    the stored size. whole_mb: a video whose frames, once reduced, take at most this many megabytes is decoded whole, so
    that it can stay in memory; 0 reads clips only. stored_fps: frame rate of folders of frames and arrays. pixels: how
    stored values of frames become colours. labels: whether to read classes.
    """

    decoder: Decoder = "auto"
    short_side: int | None = None
    whole_mb: float = 8.0
    stored_fps: float = 25.0
    pixels: PixelSettings = AS_STORED
    labels: bool = True


def open_source(
    source: Source, root: Path, split: Split, options: ReadOptions, opened: Opened | None = None
) -> StoredSplit:
    """One split of the videos at `root`: samples whose inputs are a StoredVideo, and the class names.

    source: "folder" (with class folders, or flat; of videos, or of images if there are no videos), "csv" (files that
    list paths of videos or images, and labels), "webdataset" (tar shards),
    "frames" (a folder of images per video) or "npy" (an array per video); the last two are organised like "folder".
    opened: what other splits have listed already.
    """
    if options.short_side is not None and options.short_side < 1:
        raise ValueError(f"short_side is {options.short_side}; at least 1 pixel is needed")
    if source in ("folder", "csv", "webdataset"):
        usable_decoder(options.decoder)  # reports a missing decoder now, not at the first sample
    samples, classes = _open(source, root, split, options, opened)
    if options.whole_mb:
        assert isinstance(samples, LabelledSamples)
        samples = DecodedIfSmall(samples, options.short_side, options.whole_mb)
    return StoredSplit(samples, classes)


def _open(source: Source, root: Path, split: Split, options: ReadOptions, opened: Opened | None) -> StoredSplit:
    encoded = partial(EncodedVideo, decoder=options.decoder)
    read_file = partial(_video_or_still, options=options)
    match source:
        case "folder":
            stills = FileKind("still images", image_extensions())
            return open_folder(root, split, _ENCODED, read_file, SPLIT_SEED, options.labels, opened, stills)
        case "csv":
            endings = VIDEO_EXTENSIONS | image_extensions()
            return open_lists(root, split, endings, read_file, options.labels, opened, _stills_noted)
        case "webdataset":
            return StoredSplit(*open_shards(root, split, _ENCODED, encoded, opened, options.labels))
        case "frames":
            kind = FileKind("folders of frames", image_extensions(), whole_folders=True)
            read = partial(FrameFolder, fps=options.stored_fps, pixels=options.pixels)
            return open_folder(root, split, kind, read, SPLIT_SEED, options.labels, opened)
        case "npy":
            array = partial(ArrayFile, fps=options.stored_fps)
            return open_folder(root, split, _ARRAYS, array, SPLIT_SEED, options.labels, opened)
        case _:
            raise ValueError(f"unknown source of videos '{source}'; allowed are {', '.join(get_args(Source))}")


def open_file(path: Path, options: ReadOptions) -> StoredVideo:
    """One video: a file, an image, an array, or a folder of frames."""
    if path.is_dir():
        return FrameFolder(path, options.stored_fps, options.pixels)
    if ending(path.name) == ".npy":
        return ArrayFile(path, options.stored_fps)
    return _video_or_still(path, options)


def _video_or_still(path: Path, options: ReadOptions) -> StoredVideo:
    if _is_still(path.name):
        return StillImage(path, options.pixels)
    return EncodedVideo(path, decoder=options.decoder)


def _is_still(name: str) -> bool:
    end = ending(name)
    return end in image_extensions() and end not in VIDEO_EXTENSIONS


def _stills_noted(paths: PackedStrings | TakenStrings) -> tuple[str, ...]:
    """A note on how many of the listed files are images."""
    endings = Counter(path[path.rfind(".") :] for path in paths)
    count = sum(number for each, number in endings.items() if _is_still(each))
    return (f"{count:,} of the {len(paths):,} listed files are images, which give still clips",) if count else ()
