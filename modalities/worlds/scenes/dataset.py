"""The embedded world as a data set: labelled images of solids, rendered on the first use, without any download."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from jepa.modality import Sample, Split
from modalities.storage.generated import user_cache
from modalities.worlds.cache import MappedArrays, RenderJob, check_split, rendered_folder
from modalities.worlds.scenes.worker import CHUNK, DEPTH_MAPS, IMAGES, LABELS, OBJECTS, create_files

WORLD_VERSION = 6  # raise it with every change of a pixel, a label or anything else that is stored, in any world
SCENES_VERSION = 7  # raise it with every change of the scenes without captions alone
_SPAN = 50 << 24  # scene indices per split, far more than anybody renders; a multiple of 50 keeps labels balanced
_FIRST: dict[Split, int] = {"train": 0, "validation": _SPAN, "test": 2 * _SPAN}


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """seed: another seed gives other scenes of the same kind. train, validation, test: images rendered per split."""

    seed: int = 0
    train: int = 20_000
    validation: int = 2_000
    test: int = 2_000


class Scenes:
    """Images with the labels `class`, `count`, `depth` and `depth_map`, from a cache that the first use fills.

    inputs: uint8 [3, size, size], RGB. class: index in CLASSES of the shape of the main (nearest) object. count: 1 to 5
    objects that cover at least 0.3 % of the image. depth: metres from the camera to the nearest visible point of the
    main object. depth_map: float32 [D, D] with D = ceil(size / 4): distance in metres along the ray, at most 20,
    averaged over the pixels of a cell. captioned: the scenes of the world of captions, see `sample_scenes`.
    """

    def __init__(self, config: ScenesConfig, split: Split, size: int, cache_dir: Path, captioned: bool = False) -> None:
        count = {"train": config.train, "validation": config.validation, "test": config.test}[split]
        check_split(config.seed, split, count, _SPAN, "images")
        self.first = _FIRST[split]  # index in the world of the first scene
        version = (WORLD_VERSION,) if captioned else (WORLD_VERSION, SCENES_VERSION)
        job = RenderJob(
            name=f"{split}-{size}px",
            title=f"rendering scenes {size} px: {split}",
            key=(*version, config.seed, self.first, count, size),
            module="modalities.worlds.scenes.worker",
            arguments=(int(captioned), config.seed, self.first),
            count=count,
            chunk=CHUNK,
            create=partial(create_files, count=count, size=size),
        )
        self.folder = rendered_folder(cache_dir, job)
        self._arrays = MappedArrays(self.folder, (IMAGES, LABELS, DEPTH_MAPS, OBJECTS))

    def __len__(self) -> int:
        return len(self._arrays[IMAGES])

    def __getitem__(self, index: int) -> Sample:
        labels = self._arrays[LABELS][index]
        return Sample(
            torch.from_numpy(np.array(self._arrays[IMAGES][index])),
            {
                "class": int(labels["class"]),
                "count": int(labels["count"]),
                "depth": float(labels["depth"]),
                "depth_map": torch.from_numpy(self._arrays[DEPTH_MAPS][index].astype(np.float32)),
            },
        )

    def objects(self, index: int) -> NDArray[np.void]:
        """The objects of a scene: [K] of scenes.worker.OBJECT_TYPE, the main object first."""
        return np.array(self._arrays[OBJECTS][index])


def default_cache_dir() -> Path:
    """Where rendered scenes and clips are stored: $XDG_CACHE_HOME/openjepa/scenes, by default below ~/.cache."""
    return user_cache("scenes")
