"""Renders chunks of a split of clips into its files; worlds.cache runs it as a program.

It needs numpy only, so that it starts in a fraction of a second.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.moving.description import MOTIONS, ClipBatch, image_positions, scenes_at
from modalities.worlds.moving.render import RenderedClips, render_clips
from modalities.worlds.moving.sampling import sample_clips
from modalities.worlds.scenes.worker import VISIBLE, main

CLIPS, CLIP_LABELS = "clips.npy", "labels.npy"
CLIP_LABEL_TYPE = np.dtype(
    [
        ("motion", np.int16),
        ("direction", np.int16),  # -1 for none; floats are nan if they do not apply
        ("count", np.int16),
        ("speed", np.float32),
        ("next_x", np.float32),
        ("next_y", np.float32),
        ("collision", np.float32),
    ]
)
CHUNK = 12  # clips that a worker renders between two progress reports
_COLLIDING = MOTIONS.index("colliding")


def create_files(folder: Path, count: int, frames: int, side: int) -> None:
    """Create empty files of the right shape."""
    shape = (count, frames, 3, side, side)
    np.lib.format.open_memmap(folder / CLIPS, mode="w+", dtype=np.uint8, shape=shape)
    np.lib.format.open_memmap(folder / CLIP_LABELS, mode="w+", dtype=CLIP_LABEL_TYPE, shape=(count,))


def label_delay(frames: int) -> int:
    """Frames from the last frame of a clip to the labelled next position: a quarter of the clip."""
    return max(frames // 4, 1)


def clip_labels(clips: ClipBatch, rendered: RenderedClips) -> NDArray[np.void]:
    """Labels of clips: [B] of CLIP_LABEL_TYPE; see MovingScenes."""
    batch = np.arange(len(clips.motion))
    slots = range(clips.spin.shape[1])
    covered = np.stack([(rendered.objects == slot).mean(axis=(2, 3)) for slot in slots])  # [K, B, F]
    later = scenes_at(clips, clips.frames - 1 + label_delay(clips.frames))
    position = image_positions(later)[batch, clips.main]  # [B, 2]
    position[clips.main < 0] = np.nan
    found = np.empty(len(batch), dtype=CLIP_LABEL_TYPE)
    found["motion"], found["direction"], found["speed"] = clips.motion, clips.direction, clips.speed
    found["count"] = (covered.max(axis=-1) >= VISIBLE).sum(axis=0)
    found["next_x"], found["next_y"] = (1 + position[:, 0]) / 2, (1 - position[:, 1]) / 2
    found["collision"] = np.where(clips.motion == _COLLIDING, clips.event, np.nan)
    return found


def render_chunk(folder: Path, seed: int, first: int, chunk: int) -> int:
    """Render one chunk of a split whose first clip has index `first`; return the number of clips in it."""
    images, labels = (np.load(folder / name, mmap_mode="r+") for name in (CLIPS, CLIP_LABELS))
    part = slice(chunk * CHUNK, min((chunk + 1) * CHUNK, len(images)))
    clips = sample_clips(seed, first + np.arange(part.start, part.stop), images.shape[1])
    rendered = render_clips(clips, images.shape[-1])
    images[part], labels[part] = rendered.images, clip_labels(clips, rendered)
    return part.stop - part.start


if __name__ == "__main__":
    main(render_chunk, *sys.argv[1:])
