"""The embedded world that moves, as a data set: short clips with what is known about each, and no download."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from jepa.modality import Label, Sample, Split
from modalities.worlds.cache import MappedArrays, RenderJob, check_split, rendered_folder
from modalities.worlds.moving.description import DIRECTIONS, MOTIONS
from modalities.worlds.moving.sampling import BLOCK
from modalities.worlds.moving.worker import CHUNK, CLIP_LABELS, CLIPS, create_files
from modalities.worlds.scenes.dataset import WORLD_VERSION

__all__ = ["DIRECTIONS", "MOTIONS", "MovingScenes", "MovingScenesConfig"]

MOVING_VERSION = 1  # to be raised with every change that alters a pixel or a label of clips but not of scenes
_SPAN = BLOCK << 20  # clip numbers of a split; a multiple of BLOCK keeps labels balanced
_FIRST: dict[Split, int] = {"train": 0, "validation": _SPAN, "test": 2 * _SPAN}
_FEWEST_FRAMES, _SMALLEST_SIDE = 4, 8


@dataclass(frozen=True, kw_only=True)
class MovingScenesConfig:
    """Which clips: another seed is another world of the same kind; numbers of clips for each split."""

    seed: int = 0
    train: int = 4_000
    validation: int = 500
    test: int = 500


class MovingScenes:
    """Clips with labels from a cache that the first use fills. The middle frame alone tells nothing of the motion.

    inputs: uint8 [frames, 3, side, side], RGB. Labels; those that do not apply to a clip are left out:
    motion: index in MOTIONS of what happens. moving: an object crosses the picture at one distance; turning: it turns
    in its place; approaching, receding: it comes towards the camera or goes away; colliding: it flies into another and
    both bounce; appearing, disappearing: it comes out from behind another or goes behind it; panning: the camera turns.
    direction: index in DIRECTIONS of where that object moves in the picture, before a collision, or of where all moves
    as the camera pans; unknown for turning, approaching and receding. speed: of that movement, picture widths a frame.
    count: objects that cover at least 0.3 % of the picture in any frame, 2 to 5. next_x, next_y: where the middle of
    that object is a quarter of the clip after the last frame, from the left and upper edge in picture widths; unknown
    for panning. collision: frames from the first one to the collision, which need not be a whole number.
    """

    def __init__(self, config: MovingScenesConfig, split: Split, frames: int, side: int, cache_dir: Path) -> None:
        count = {"train": config.train, "validation": config.validation, "test": config.test}[split]
        check_split(config.seed, split, count, _SPAN, "clips")
        if frames < _FEWEST_FRAMES or side < _SMALLEST_SIDE:
            raise ValueError(
                f"clips of scenes have at least {_FEWEST_FRAMES} frames of {_SMALLEST_SIDE} pixels a side; "
                f"{frames} frames of {side} were asked for"
            )
        first = _FIRST[split]
        job = RenderJob(
            name=f"clips-{split}-{frames}x{side}px",
            title=f"rendering clips {side} px: {split}",
            key=(WORLD_VERSION, MOVING_VERSION, config.seed, first, count, frames, side),
            module="modalities.worlds.moving.worker",
            arguments=(config.seed, first),
            count=count,
            chunk=CHUNK,
            create=partial(create_files, count=count, frames=frames, side=side),
        )
        self.folder = rendered_folder(cache_dir, job)
        self._arrays = MappedArrays(self.folder, (CLIPS, CLIP_LABELS))

    def __len__(self) -> int:
        return len(self._arrays[CLIPS])

    def __getitem__(self, index: int) -> Sample:
        known = self._arrays[CLIP_LABELS][index]
        labels: dict[str, Label] = {"motion": int(known["motion"]), "count": int(known["count"])}
        if known["direction"] >= 0:
            labels["direction"] = int(known["direction"])
        for name in ("speed", "next_x", "next_y", "collision"):
            if np.isfinite(known[name]):
                labels[name] = float(known[name])
        return Sample(torch.from_numpy(np.array(self._arrays[CLIPS][index])), labels)
