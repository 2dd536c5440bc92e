"""Renders chunks of a split of scenes into its files; worlds.cache runs it as a program.

It needs numpy only, so that it starts in a fraction of a second.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.scenes.description import SceneBatch
from modalities.worlds.scenes.parts import MAX_OBJECTS, SIZES
from modalities.worlds.scenes.render import RenderedScenes, render
from modalities.worlds.scenes.sampling import sample_scenes

IMAGES, LABELS, DEPTH_MAPS, OBJECTS = "images.npy", "labels.npy", "depth_maps.npy", "objects.npy"
LABEL_TYPE = np.dtype([("class", np.int16), ("count", np.int16), ("depth", np.float32)])
OBJECT_TYPE = np.dtype(
    [
        ("class", np.int16),  # in CLASSES, -1 for an empty slot, where all other fields are 0
        ("colour", np.int16),  # in COLOURS
        ("material", np.int16),  # in MATERIALS
        ("pattern", np.int16),  # in PATTERNS
        ("contrast", np.float32),  # distance in sRGB between the colours of the pattern, 0 for a plain object
        ("size", np.float32),  # diameter in metres, roughly; equal sizes cover about equal areas of the image
        ("share", np.float32),  # of the image's pixels
        ("column", np.float32),  # mean column of those pixels: 0 left edge, 1 right edge; 0 without pixels
        ("row", np.float32),  # mean row: 0 upper edge, 1 lower edge
        ("distance", np.float32),  # metres from the camera to the centre of the object
    ]
)
CHUNK = 64  # images that a worker renders between two progress reports
_BATCH = 8  # images rendered at once; more do not fit into the caches of a core
VISIBLE = 0.003  # share of the image that an object must cover to be counted
_DEPTH_CELL = 4  # pixels per side over which a stored depth is averaged


def create_files(folder: Path, count: int, size: int) -> None:
    """Create empty files of the right shape."""
    side = depth_side(size)
    for name, shape, kind in (
        (IMAGES, (count, 3, size, size), np.dtype(np.uint8)),
        (LABELS, (count,), LABEL_TYPE),
        (DEPTH_MAPS, (count, side, side), np.dtype(np.float16)),
        (OBJECTS, (count, MAX_OBJECTS), OBJECT_TYPE),
    ):
        np.lib.format.open_memmap(folder / name, mode="w+", dtype=kind, shape=shape)


def depth_side(size: int) -> int:
    """Cells per side of the depth map of an image of size x size pixels."""
    return -(-size // _DEPTH_CELL)


def scene_labels(scenes: SceneBatch, rendered: RenderedScenes) -> NDArray[np.void]:
    """Labels of images: [B] of LABEL_TYPE.

    class: shape of the main object; count: objects that cover at least 0.3 % of the pixels; depth: metres from the
    camera to the nearest visible point of any object, which is on the main one.
    """
    pixels = rendered.objects[0].size
    covered = np.stack([(rendered.objects == slot).sum(axis=(1, 2)) for slot in range(scenes.objects.shape.shape[1])])
    found = np.empty(len(rendered.objects), dtype=LABEL_TYPE)
    found["class"] = scenes.objects.shape[:, 0]
    found["count"] = (covered >= VISIBLE * pixels).sum(axis=0)
    found["depth"] = np.where(rendered.objects >= 0, rendered.depth, np.inf).min(axis=(1, 2))
    return found


def object_records(scenes: SceneBatch, rendered: RenderedScenes) -> NDArray[np.void]:
    """The objects of scenes and how the images show them: [B, K] of OBJECT_TYPE, slot 0 is the main object."""
    objects, size = scenes.objects, rendered.objects.shape[-1]
    visible = rendered.objects[:, None] == np.arange(MAX_OBJECTS, dtype=np.int8)[:, None, None]  # [B, K, S, S]
    columns, rows = visible.sum(axis=2, dtype=np.int32), visible.sum(axis=3, dtype=np.int32)  # pixels: [B, K, S]
    pixels = columns.sum(axis=-1)
    centres = (np.arange(size) + 0.5) / (size * np.maximum(pixels, 1)[..., None])  # [B, K, S]
    found = np.empty(objects.shape.shape, dtype=OBJECT_TYPE)
    found["class"], found["colour"] = objects.shape, objects.colour
    found["material"], found["pattern"] = objects.material, objects.pattern
    found["contrast"] = np.linalg.norm(np.diff(np.sqrt(objects.rgb), axis=2)[:, :, 0], axis=-1) * (objects.pattern > 0)
    found["size"] = 2 * objects.scale[..., 0] / SIZES[objects.shape]
    found["share"] = pixels / size**2
    found["column"], found["row"] = (columns * centres).sum(axis=-1), (rows * centres).sum(axis=-1)
    found["distance"] = np.linalg.norm(objects.position - scenes.camera.position[:, None], axis=-1)
    empty = np.zeros((), dtype=OBJECT_TYPE)
    empty["class"] = -1
    found[np.arange(MAX_OBJECTS) >= objects.count[:, None]] = empty
    return found


def depth_cells(depth: NDArray[np.float32]) -> NDArray[np.float16]:
    """Means over cells of 4 x 4 pixels, slightly smaller if 4 does not divide the size: [B, S, S] -> [B, D, D]."""
    size = depth.shape[-1]
    starts = np.arange(depth_side(size)) * size // depth_side(size)
    extent = np.diff(np.append(starts, size))
    sums = np.add.reduceat(np.add.reduceat(depth, starts, axis=1), starts, axis=2)
    return (sums / np.outer(extent, extent)).astype(np.float16)


def render_chunk(folder: Path, seed: int, first: int, chunk: int, *, captioned: bool) -> int:
    """Render one chunk of a split whose first scene has index `first`; return the number of images in it."""
    names = (IMAGES, LABELS, DEPTH_MAPS, OBJECTS)
    images, labels, depth_maps, objects = (np.load(folder / name, mmap_mode="r+") for name in names)
    start, stop = chunk * CHUNK, min((chunk + 1) * CHUNK, len(images))
    for begin in range(start, stop, _BATCH):
        part = slice(begin, min(begin + _BATCH, stop))
        scenes = sample_scenes(seed, first + np.arange(part.start, part.stop), captioned)
        rendered = render(scenes, images.shape[-1])
        images[part], depth_maps[part] = rendered.images, depth_cells(rendered.depth)
        labels[part], objects[part] = scene_labels(scenes, rendered), object_records(scenes, rendered)
    return stop - start


def main(render: Callable[[Path, int, int, int], int], folder: str, seed: str, first: str, *chunks: str) -> None:
    """Render chunks and print the number of items after each; end if nobody reads the output any more."""
    for chunk in chunks:
        count = render(Path(folder), int(seed), int(first), int(chunk))
        os.write(sys.stdout.fileno(), f"{count}\n".encode())  # one write: lines of workers must not mix


if __name__ == "__main__":
    folder, captioned, *others = sys.argv[1:]
    main(partial(render_chunk, captioned=bool(int(captioned))), folder, *others)
