"""The smallest modality: noise on a grid of rows and columns, 2 channels, patches of 2 x 2."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from jepa.encoder import VitSize, patch_embedding
from jepa.masking import MaskingConfig, Masks, RandomMaskConfig, check_masking, sample_masks
from jepa.modality import BadSampleError, DataConfig, Modality, Sample, Samples, Split, Task
from jepa.model_config import ModelConfig
from jepa.positions import Grid
from jepa.predictor import PredictorConfig

PATCH, CHANNELS = 2, 2
SIZE = VitSize(width=24, depth=2, heads=2)
MODEL = ModelConfig(size=SIZE, predictor=PredictorConfig(width=16, depth=2, heads=2))


@dataclass(frozen=True, kw_only=True)
class NoiseConfig(DataConfig):
    """bad: samples that cannot be read. sets: sets of masks per batch. views: views per sample."""

    samples: PositiveInt = 20
    grid: tuple[PositiveInt, PositiveInt] = (4, 6)
    bad: tuple[int, ...] = ()
    sets: PositiveInt = 1
    views: PositiveInt = 1
    max_bad_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    masking: MaskingConfig = field(default_factory=lambda: RandomMaskConfig(ratio=0.5))


class NoiseSamples:
    """Sample i is noise seeded by i."""

    def __init__(self, config: NoiseConfig) -> None:
        self.config = config

    def __len__(self) -> int:
        return self.config.samples

    def __getitem__(self, index: int) -> Sample:
        if index in self.config.bad:
            raise BadSampleError(f"noise/{index}", "it is\nbroken")
        return Sample(noise(1, self.config.grid, seed=index)[0], {"class": index % 2})


class Noise(Modality[NoiseConfig]):
    """Random numbers; the training view adds a random offset."""

    contract, config_type = 1, NoiseConfig

    def __init__(self, config: NoiseConfig) -> None:
        super().__init__(config)
        self.grid, self.views = config.grid, config.views
        check_masking(self.grid, config.masking)

    def dataset(self, split: Split) -> Samples:
        return NoiseSamples(self.config)

    def embedding(self, dim: int) -> nn.Module:
        values = CHANNELS * PATCH * PATCH
        return patch_embedding("b c (h p) (w q) -> b (h w) (c p q)", values, dim, p=PATCH, q=PATCH)

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        return [sample_masks(self.grid, self.config.masking, batch_size, generator) for _ in range(self.config.sets)]

    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        return inputs + torch.rand(1, generator=generator)


class Labelled(Noise):
    """Noise with classes; nothing may open the test split."""

    tasks = (Task(label="class", kind="class", classes=("even", "odd")),)

    def dataset(self, split: Split) -> Samples:
        assert split != "test"
        return super().dataset(split)


def noise(batch: int, grid: Grid = (4, 6), seed: int = 0) -> Tensor:
    """Inputs of the noise modality: [B, 2, H, W]."""
    generator = Generator().manual_seed(seed)
    return torch.randn(batch, CHANNELS, grid[0] * PATCH, grid[1] * PATCH, generator=generator)


def random_masks(
    batch: int, tokens: int = 24, context: int = 8, blocks: int = 3, size: int = 4, seed: int = 0
) -> Masks:
    """Disjoint context and target blocks, drawn without the masking module."""
    generator = Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(tokens, generator=generator) for _ in range(batch)])
    target = orders[:, context : context + blocks * size].unflatten(1, (blocks, size))
    return Masks(orders[:, :context].sort().values, target.sort().values)


def randomise(module: nn.Module) -> None:
    """Give a network large weights, uneven norms and non-zero biases, so that every part affects its output."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.5 * parameter.shape[1] ** -0.5)
        else:
            nn.init.normal_(parameter, mean=0.7, std=0.3)


class Padded(nn.Module):
    """Embedding of numbers, one per token; inputs also hold the length of each sample, and later tokens are absent."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(1, dim)

    def forward(self, inputs: tuple[Tensor, Tensor], keep: Tensor | None = None) -> Tensor:
        """Values [B, N] and lengths [B], token indices [B, K] or None for all -> [B, K, dim]."""
        values = inputs[0] if keep is None else inputs[0].gather(1, keep)
        return self.project(values.unsqueeze(-1))  # type: ignore[no-any-return]

    def valid(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Which tokens exist: bool [B, N]."""
        return torch.arange(inputs[0].shape[1]) < inputs[1].unsqueeze(1)


class PaddedNoise(Noise):
    """Samples of 5 to 24 numbers on the grid of the noise modality; the padding holds large values."""

    def embedding(self, dim: int) -> nn.Module:
        return Padded(dim)

    def training_view(self, inputs: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        return self.evaluation_view(inputs)

    def evaluation_view(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        values, length = inputs.flatten()[:24], 5 + int(1e3 * inputs[0, 0, 0].abs()) % 20
        return torch.where(torch.arange(24) < length, values, 100.0), torch.tensor(length)

    def baselines(self, view: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        return {"raw_input": view[0]}


class Rows(PaddedNoise):
    """Samples are rows of at most 24 numbers, one per token."""

    def evaluation_view(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        values = inputs.float()[:24]
        return nn.functional.pad(values, (0, 24 - len(values))), torch.tensor(len(values))


class Categories(nn.Module):
    """Embedding of codes from 0 to 4, one per token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(5, dim)

    def forward(self, codes: Tensor, keep: Tensor | None = None) -> Tensor:
        """Codes [B, N], token indices [B, K] or None for all -> [B, K, dim]."""
        return self.vectors((codes if keep is None else codes.gather(1, keep)).long())  # type: ignore[no-any-return]


class Codes(Noise):
    """Samples of 24 codes, as floats."""

    def embedding(self, dim: int) -> nn.Module:
        return Categories(dim)

    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        return self.evaluation_view(inputs)

    def evaluation_view(self, inputs: Tensor) -> Tensor:
        return (inputs.flatten()[:24].abs() * 100).floor() % 5


LENGTHS = torch.tensor([24, 17, 9])


def padded(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three samples of different lengths; the seed changes only the padding."""
    values = torch.randn(3, 24, generator=Generator().manual_seed(-1))
    other = torch.randn(3, 24, generator=Generator().manual_seed(seed))
    return torch.where(torch.arange(24) < LENGTHS.unsqueeze(1), values, other), LENGTHS
