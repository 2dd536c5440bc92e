"""The smallest modality with a time axis: a bright dot that moves over a grid of moments, rows and columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from jepa.data import seeded
from jepa.encoder import VitSize, patch_embedding
from jepa.masking import CausalMaskConfig, MaskingConfig, Masks, check_masking, sample_masks
from jepa.modality import BadSampleError, DataConfig, Modality, Sample, Samples, Split, Task
from jepa.model_config import ModelConfig
from jepa.predictor import PredictorConfig

SIDE, PATCH, TUBELET = 12, 3, 2
SIZE = VitSize(width=32, depth=2, heads=2)
MODEL = ModelConfig(size=SIZE, predictor=PredictorConfig(width=32, depth=2, heads=2))
DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))  # rows, columns a moment


@dataclass(frozen=True, kw_only=True)
class MovingConfig(DataConfig):
    """moments: of a sample. still: the dot stays where it is. bad: samples whose views cannot be decoded."""

    samples: PositiveInt = 60
    moments: PositiveInt = 8
    still: bool = False
    evaluation_views: PositiveInt = 2
    bad: tuple[int, ...] = ()
    max_bad_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    masking: MaskingConfig = field(default_factory=CausalMaskConfig)


class Dots:
    """Sample i of a split is a function of both; it counts how often it is read."""

    def __init__(self, config: MovingConfig, split: Split) -> None:
        self.config, self.split, self.read = config, split, 0

    def __len__(self) -> int:
        return self.config.samples

    def __getitem__(self, index: int) -> Sample:
        self.read += 1
        generator = seeded("dot", self.split, index)
        way = int(torch.randint(4, (), generator=generator))
        start = torch.randint(SIDE, (2,), generator=generator)
        speed = 0 if self.config.still else 1
        dots = torch.rand(1, generator=generator) * 0.1 * torch.ones(1, self.config.moments, SIDE, SIDE)
        for moment in range(self.config.moments):
            row, column = ((start + speed * moment * torch.tensor(DIRECTIONS[way])) % SIDE).tolist()
            dots[0, moment, row, column] = 3.0
        if self.split != "train" and index in self.config.bad:
            return Sample(f"{self.split}/{index}")
        return Sample(dots, {"way": way, "row": float(start[0])})


class Moving(Modality[MovingConfig]):
    """Dots, [1, T, H, W]; a further view of a sample is the same one turned upside down."""

    contract, config_type = 1, MovingConfig
    tasks = (
        Task(label="way", kind="class", classes=("right", "left", "down", "up"), attentive=(1,)),
        Task(label="row", kind="count", attentive=(1,)),
    )
    forecast_axis = 0

    def __init__(self, config: MovingConfig) -> None:
        super().__init__(config)
        self.grid = (config.moments // TUBELET, SIDE // PATCH, SIDE // PATCH)
        check_masking(self.grid, config.masking)

    def dataset(self, split: Split) -> Samples:
        return Dots(self.config, split)

    def embedding(self, dim: int) -> nn.Module:
        pattern, values = "b c (t u) (h p) (w q) -> b (t h w) (c u p q)", TUBELET * PATCH**2
        return patch_embedding(pattern, values, dim, u=TUBELET, p=PATCH, q=PATCH)

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        return [sample_masks(self.grid, self.config.masking, batch_size, generator)]

    def evaluation_view(self, inputs: Any) -> Tensor:
        if not isinstance(inputs, Tensor):
            raise BadSampleError(inputs, "it cannot be decoded")
        return inputs

    def evaluation_views(self, inputs: Any) -> Sequence[Tensor]:
        view = self.evaluation_view(inputs)
        return [view, view.flip(2)][: self.config.evaluation_views]

    def baselines(self, view: Tensor) -> Mapping[str, Tensor]:
        middle = view[:, view.shape[1] // 2].flatten()
        return {
            **super().baselines(view),
            "middle_moment": middle,
            "motion_energy": view.diff(dim=1).abs().mean((0, 2, 3)),
        }

    def picture(self, view: Tensor) -> Tensor:
        grey = (view[0].clamp(0, 3) * 85).byte()  # [T, H, W]
        large = grey.repeat_interleave(5, dim=1).repeat_interleave(5, dim=2)
        return large.unsqueeze(-1).expand(-1, -1, -1, 3).contiguous()


class UnlabelledMoving(Moving):
    """Dots of which an evaluation measures no task."""

    tasks = ()
