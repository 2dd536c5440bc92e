"""Images: patches on a grid of rows and columns, from folders, torchvision, tar shards or the embedded world."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from jepa.data.given import ValueRange
from jepa.data.summary import SplitSummary
from jepa.encoder import patch_embedding
from jepa.errors import UserError
from jepa.masking import Masks, check_masking, mask_groups, sample_masks
from jepa.modality import BadSampleError, Modality, Sample, Samples, Split, Task
from jepa.positions import Grid
from modalities.image.augment import UncroppedLocalView, UncroppedView, ViewParameters, draw, views_on_device
from modalities.image.config import ImageConfig
from modalities.image.sources import EVIDENCE, open_source
from modalities.image.views import center_view, denormalise, normalise, normalise_bytes
from modalities.storage.given import given_pixels
from modalities.storage.images import decode_image
from modalities.storage.opened import Opened
from modalities.storage.sources import source_and_root, with_source
from modalities.storage.splits import StoredSplit
from modalities.storage.value_ranges import value_range_warnings
from modalities.worlds.scenes.dataset import SCENES_VERSION, Scenes, default_cache_dir
from modalities.worlds.scenes.shapes import CLASSES

_RAW_SIDE = 32  # pixels per side of the raw-input baseline
_SIZES_READ = 16  # images whose sizes are compared as a run starts


class Image(Modality[ImageConfig]):
    """Images as sequences of patches, row by row."""

    contract, config_type = 1, ImageConfig

    def __init__(self, config: ImageConfig) -> None:
        config = with_source(config, EVIDENCE, "or the name of a torchvision data set")
        super().__init__(config)
        self.grid = _grid("image_size", config.size, config.patch_size)
        if config.local_views:
            self.local_grid = _grid("local_size", config.size_of_local, config.patch_size)
        if config.mask_sets % config.views:
            raise ValueError(f"mask_sets {config.mask_sets} do not divide among {config.views} views")
        self.views, self.local_views = config.views, config.local_views
        check_masking(self.grid, config.masking)
        self.mask_groups = mask_groups([config.masking])
        self._opened = Opened()

    @cached_property
    def _labelled_classes(self) -> Sequence[str]:
        return CLASSES if self.config.source == "scenes" else self._open("train").classes

    @property
    def tasks(self) -> Sequence[Task]:  # type: ignore[override]
        """Classes of labelled images; in the embedded world also counting and depth."""
        classes = [Task(label="class", kind="class", classes=self._labelled_classes)] if self._labelled_classes else []
        if self.config.source != "scenes":
            return classes
        return [
            *classes,
            Task(label="count", kind="count"),
            Task(label="depth", kind="regression"),
            Task(label="depth_map", kind="map"),
        ]

    def dataset(self, split: Split) -> Samples:
        """Images at their stored size, uint8 [3, H, W]."""
        if self.config.source == "scenes":
            return _Scenes(Scenes(self.config.scenes, split, max(self.config.size), default_cache_dir()), self.grid)
        return self._open(split).samples

    def embedding(self, dim: int) -> nn.Module:
        """[B, 3, H, W] -> [B, N, dim]."""
        p = self.config.patch_size
        return patch_embedding("b c (h p) (w q) -> b (h w) (c p q)", 3 * p * p, dim, p=p, q=p)

    def data_warnings(self) -> Sequence[str]:
        """Deep images whose values fall into few levels, as `value_range` is not set."""
        if self.config.source == "scenes" or self.config.value_range is not None:
            return ()
        return value_range_warnings(self.dataset("train"), lambda image: image, 8)

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        """`mask_sets` mask sets, by the strategy of the config."""
        masking = self.config.masking
        return [sample_masks(self.grid, masking, batch_size, generator) for _ in range(self.config.mask_sets)]

    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        """Random resized crop, uint8 [3, H', W'] -> float [3, H, W]."""
        config, drawn = self.config, self._drawn(inputs, self.config.crop_scale, generator)
        if not self._on_device:
            return self._normalised(drawn.view(inputs, config.size))
        return self.to_network(UncroppedView(inputs.unsqueeze(0), drawn.as_tensor().unsqueeze(0)))[0]

    def loader_view(self, inputs: Tensor, generator: Generator) -> Tensor | UncroppedView:
        """Random resized crop, uint8 [3, H', W'] -> uint8 [3, H, W], or what makes it under `augment_on=device`."""
        drawn = self._drawn(inputs, self.config.crop_scale, generator)
        if self._on_device:
            return UncroppedView(self._of_one_size(inputs), drawn.as_tensor())
        return drawn.view(inputs, self.config.size)

    def local_view(self, inputs: Tensor, generator: Generator) -> Tensor | UncroppedLocalView:
        """Smaller random resized crop, uint8 [3, H', W'] -> uint8 [3, h, w], or what makes it, as `loader_view`."""
        drawn = self._drawn(inputs, self.config.local_scale, generator)
        if self._on_device:
            return UncroppedLocalView(self._of_one_size(inputs), drawn.as_tensor())
        return drawn.view(inputs, self.config.size_of_local)

    def to_network(self, views: Tensor | UncroppedView | UncroppedLocalView) -> Tensor:
        """uint8 [B, 3, H, W], or what makes it -> float [B, 3, H, W]."""
        config = self.config
        if isinstance(views, Tensor):
            return normalise_bytes(views, config.pixel_mean, config.pixel_std)
        size = config.size if isinstance(views, UncroppedView) else config.size_of_local
        return self._normalised(views_on_device(views.image, views.parameters, size, config.colour is not None))

    def evaluation_view(self, inputs: Tensor) -> Tensor:
        """Central crop, uint8 [3, H', W'] -> float [3, H, W]; raises ValueError for anything else."""
        if not isinstance(inputs, Tensor) or inputs.dtype != torch.uint8 or inputs.shape[-3:-2] != (3,):
            raise ValueError(
                f"evaluation_view takes a uint8 tensor [3, H, W], not {_described(inputs)}; "
                "jepa.data.given.stored_input(modality, image) makes one of a path, an array or a Pillow image"
            )
        return self._normalised(center_view(inputs, self.config.size))

    def example_view(self) -> Tensor:
        """An empty image: float [3, H, W]."""
        return torch.zeros(3, *self.config.size)

    def example_loader_view(self) -> Tensor | UncroppedView:
        """An empty image: uint8 [3, H, W]; under `augment_on=device` of the stored size."""
        return UncroppedView(*self._empty_uncropped) if self._on_device else _empty(self.config.size)

    def example_local_view(self) -> Tensor | UncroppedLocalView:
        """An empty smaller image: uint8 [3, h, w]; under `augment_on=device` of the stored size."""
        return UncroppedLocalView(*self._empty_uncropped) if self._on_device else _empty(self.config.size_of_local)

    def baselines(self, view: Tensor) -> Mapping[str, Tensor]:
        """Pixels, averaged to at most 32 x 32: [3, H, W] -> [F]."""
        height, width = (min(side, _RAW_SIDE) for side in self.config.size)
        return {"raw_input": F.adaptive_avg_pool2d(view, (height, width)).flatten()}

    def stored_input(self, given: Any, value_range: ValueRange) -> Tensor:
        """A path, an array or a Pillow image -> uint8 [3, H', W']."""
        if isinstance(given, str | Path):
            return decode_image(Path(given), self.config.stored_side, pixels=self.config)
        return given_pixels(given, 3, value_range, self.config)

    def picture(self, view: Tensor) -> Tensor:
        """[3, H, W] -> uint8 [H, W, 3]."""
        return denormalise(view, self.config.pixel_mean, self.config.pixel_std).permute(1, 2, 0)

    def _normalised(self, pixels: Tensor) -> Tensor:
        return normalise(pixels, self.config.pixel_mean, self.config.pixel_std)

    @property
    def _on_device(self) -> bool:
        return self.config.augment_on == "device"

    def _drawn(self, inputs: Tensor, scale: tuple[float, float], generator: Generator) -> ViewParameters:
        config = self.config
        return draw(_size(inputs), scale, config.crop_aspect, config.flip, config.colour, generator)

    @cached_property
    def _stored_size(self) -> tuple[int, int]:
        """Height and width of most of the first stored images; raises UserError if there is no such size."""
        if self.config.source == "scenes":  # opening them would render them
            return max(self.config.size), max(self.config.size)
        samples, sizes = self.dataset("train"), Counter[tuple[int, int]]()
        for index in range(min(len(samples), _SIZES_READ)):
            with suppress(BadSampleError):
                sizes[_size(samples[index].inputs)] += 1
        most = sizes.most_common(1)
        if not most or 2 * most[0][1] <= sizes.total():
            found = ", ".join(f"{height} x {width} pixels" for height, width in sorted(sizes)) or "none is readable"
            raise UserError(
                "data.augment_on=device needs stored images of one size, or set data.augment_on=workers; among the "
                f"first {_SIZES_READ}: {found}"
            )
        return most[0][0]

    @property
    def _empty_uncropped(self) -> tuple[Tensor, Tensor]:
        size = self._stored_size
        return _empty(size), ViewParameters((0, 0, *size), mirrored=False, colours=None).as_tensor()

    def _of_one_size(self, image: Tensor) -> Tensor:
        """The image; raises BadSampleError if it has not the size of the others, as a batch on the device has one."""
        if _size(image) != self._stored_size:
            (height, width), (usual_height, usual_width) = _size(image), self._stored_size
            raise BadSampleError(
                "",
                f"it has {height} x {width} pixels, others {usual_height} x {usual_width}, and data.augment_on=device "
                "needs one size",
            )
        return image

    def _open(self, split: Split) -> StoredSplit:
        config, (source, root) = self.config, source_and_root(self.config)
        open_split = partial(
            open_source,
            min_side=config.stored_side,
            pixels=config,
            arguments=config.torchvision,
            opened=self._opened.at(self.index_folder),
            labels=config.reads_labels,
        )
        return self._opened.once((split, self.index_folder), lambda: open_split(source, root, split))


def _described(given: Any) -> str:
    if isinstance(given, Tensor | np.ndarray):
        kind = "a tensor" if isinstance(given, Tensor) else "an array"
        return f"{kind} of {str(given.dtype).removeprefix('torch.')} {list(given.shape)}"
    return f"an object of type {type(given).__name__}"


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def _empty(size: tuple[int, int]) -> Tensor:
    return torch.zeros(3, *size, dtype=torch.uint8)


def _grid(setting: str, size: tuple[int, int], patch: int) -> Grid:
    """Tokens of an image; raises ValueError if patches do not fill it."""
    if size[0] % patch or size[1] % patch:
        raise ValueError(f"patch_size {patch} does not divide {setting} {size[0]} x {size[1]}")
    return size[0] // patch, size[1] // patch


class _Scenes:
    """Scenes whose depth maps are averaged to one number per token."""

    def __init__(self, scenes: Scenes, grid: Grid) -> None:
        self.scenes, (self.rows, self.columns) = scenes, grid
        self.summary = SplitSummary(noun="scenes", where=f"of version {SCENES_VERSION} of the embedded world")

    def __len__(self) -> int:
        return len(self.scenes)

    def digest(self) -> str:
        """What a run records of its data: another version renders other scenes."""
        return f"scenes {SCENES_VERSION}"

    def __getitem__(self, index: int) -> Sample:
        sample = self.scenes[index]
        depth = torch.as_tensor(sample.labels["depth_map"], dtype=torch.float32)
        pooled = F.adaptive_avg_pool2d(depth.unsqueeze(0), (self.rows, self.columns)).flatten()  # [N]
        return Sample(sample.inputs, {**sample.labels, "depth_map": pooled})
