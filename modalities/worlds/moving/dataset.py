"""The embedded world of clips as a data set: labelled clips, rendered on the first use, without any download."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from jepa.modality import Label, Sample, Split
from modalities.worlds.cache import MappedArrays, RenderJob, check_split, rendered_folder
from modalities.worlds.moving.sampling import BLOCK
from modalities.worlds.moving.worker import CHUNK, CLIP_LABELS, CLIPS, create_files
from modalities.worlds.scenes.dataset import WORLD_VERSION

MOVING_VERSION = 1  # raise it with every change of a pixel or a label of clips, but not of scenes
_SPAN = BLOCK << 20  # clip indices per split; a multiple of BLOCK keeps labels balanced
_FIRST: dict[Split, int] = {"train": 0, "validation": _SPAN, "test": 2 * _SPAN}
_FEWEST_FRAMES, _SMALLEST_SIDE = 4, 8


@dataclass(frozen=True, kw_only=True)
class MovingScenesConfig:
    """seed: another seed gives other clips of the same kind. train, validation, test: clips rendered per split."""

    seed: int = 0
    train: int = 4_000
    validation: int = 500
    test: int = 500


class MovingScenes:
    """Labelled clips, from a cache that the first use fills. The middle frame alone does not reveal the motion.

    inputs: uint8 [frames, 3, side, side], RGB. Labels; those that do not apply to a clip are left out:
    motion: index in MOTIONS. moving: an object crosses the image at constant depth; turning: it rotates in place;
    approaching, receding: it moves towards the camera or away; colliding: it hits another object and both bounce;
    appearing, disappearing: it comes out from behind another object or goes behind it; panning: the camera rotates.
    direction: index in DIRECTIONS of that object's motion in the image (before a collision), or of the image motion in
    panning; none for turning, approaching and receding. speed: of that motion, image widths per frame.
    count: 2 to 5 objects that cover at least 0.3 % of the image in any frame. next_x, next_y: centre of that object a
    quarter of the clip after the last frame, in image widths from the left and upper edge; none for panning.
    collision: frame of the collision, counted from the first, possibly fractional.
    """

    def __init__(self, config: MovingScenesConfig, split: Split, frames: int, side: int, cache_dir: Path) -> None:
        count = {"train": config.train, "validation": config.validation, "test": config.test}[split]
        check_split(config.seed, split, count, _SPAN, "clips")
        if frames < _FEWEST_FRAMES or side < _SMALLEST_SIDE:
            raise ValueError(
                f"source 'scenes' needs at least {_FEWEST_FRAMES} frames of {_SMALLEST_SIDE} pixels per side, "
                f"not {frames} frames of {side}"
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
        stored = self._arrays[CLIP_LABELS][index]
        labels: dict[str, Label] = {"motion": int(stored["motion"]), "count": int(stored["count"])}
        if stored["direction"] >= 0:
            labels["direction"] = int(stored["direction"])
        for name in ("speed", "next_x", "next_y", "collision"):
            if np.isfinite(stored[name]):
                labels[name] = float(stored[name])
        return Sample(torch.from_numpy(np.array(self._arrays[CLIPS][index])), labels)
