"""Renders parts of a split of the moving world into its files; run by scene_cache as a program of its own.

Knows numpy only, so that starting one costs a fraction of a second.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.moving.description import MOTIONS, ClipBatch, in_picture, scenes_at
from modalities.worlds.moving.render import Films, film
from modalities.worlds.moving.sampling import sample_clips
from modalities.worlds.scenes.worker import VISIBLE, main

CLIPS, CLIP_LABELS = "clips.npy", "labels.npy"
CLIP_LABEL_TYPE = np.dtype(
    [
        ("motion", np.int16),
        ("direction", np.int16),  # -1 for none; other labels are nan where they do not apply
        ("count", np.int16),
        ("speed", np.float32),
        ("next_x", np.float32),
        ("next_y", np.float32),
        ("collision", np.float32),
    ]
)
CHUNK = 12  # clips that a worker does between two reports
_COLLIDING = MOTIONS.index("colliding")


def create_files(folder: Path, count: int, frames: int, side: int) -> None:
    """Files of the right shape without content."""
    shape = (count, frames, 3, side, side)
    np.lib.format.open_memmap(folder / CLIPS, mode="w+", dtype=np.uint8, shape=shape)
    np.lib.format.open_memmap(folder / CLIP_LABELS, mode="w+", dtype=CLIP_LABEL_TYPE, shape=(count,))


def ahead(frames: int) -> int:
    """How many frames after the last one of a clip the next position is asked for: a quarter of the clip."""
    return max(frames // 4, 1)


def clip_labels(clips: ClipBatch, films: Films) -> NDArray[np.void]:
    """What is known about clips: [B] of CLIP_LABEL_TYPE; see MovingScenes."""
    batch = np.arange(len(clips.motion))
    covered = np.stack([(films.objects == slot).mean(axis=(2, 3)) for slot in range(clips.spin.shape[1])])  # [K, B, F]
    place = in_picture(scenes_at(clips, clips.frames - 1 + ahead(clips.frames)))[batch, clips.main]  # [B, 2]
    place[clips.main < 0] = np.nan
    found = np.empty(len(batch), dtype=CLIP_LABEL_TYPE)
    found["motion"], found["direction"], found["speed"] = clips.motion, clips.direction, clips.speed
    found["count"] = (covered.max(axis=-1) >= VISIBLE).sum(axis=0)
    found["next_x"], found["next_y"] = (1 + place[:, 0]) / 2, (1 - place[:, 1]) / 2
    found["collision"] = np.where(clips.motion == _COLLIDING, clips.event, np.nan)
    return found


def render_chunk(folder: Path, seed: int, first: int, chunk: int) -> int:
    """Fill one chunk of a split that starts at clip number `first`; gives the number of clips in it."""
    images, known = (np.load(folder / name, mmap_mode="r+") for name in (CLIPS, CLIP_LABELS))
    part = slice(chunk * CHUNK, min((chunk + 1) * CHUNK, len(images)))
    clips = sample_clips(seed, first + np.arange(part.start, part.stop), images.shape[1])
    films = film(clips, images.shape[-1])
    images[part], known[part] = films.images, clip_labels(clips, films)
    return part.stop - part.start


if __name__ == "__main__":
    main(render_chunk, *sys.argv[1:])
