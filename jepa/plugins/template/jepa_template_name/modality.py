"""Signals of one channel, cut into patches of consecutive values; replace Waves with your own data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Generator, Tensor, nn

from jepa.data import seeded
from jepa.encoder import patch_embedding
from jepa.masking import MaskingConfig, Masks, RandomMaskConfig, check_masking, sample_masks
from jepa.modality import DataConfig, Modality, Sample, Samples, Split, Task

SHAPES = ("sine", "triangle", "square", "saw")


@dataclass(frozen=True, kw_only=True)
class TemplateNameConfig(DataConfig):
    """The `data` section of a config.

    samples: signals in the training split; each other split has a quarter as many. length: values of a stored signal.
    window: values of a crop, the input of the networks. patch: values per token. noise: standard deviation of the
    noise; that of a wave is about 1. mask_sets: sets of masks per sample. views: crops per sample and step.
    """

    source: str = "waves"
    samples: PositiveInt = 2000
    length: PositiveInt = 320
    window: PositiveInt = 256
    patch: PositiveInt = 16
    noise: NonNegativeFloat = 0.5
    mask_sets: PositiveInt = 1
    views: PositiveInt = 1
    masking: MaskingConfig = field(default_factory=lambda: RandomMaskConfig(ratio=0.6))


class Waves:
    """Waves of four shapes with random period and phase, plus noise; a sample depends only on its split and index.

    inputs: float [length]. Labels: shape, an index in SHAPES, and period, in values.
    """

    def __init__(self, config: TemplateNameConfig, split: Split) -> None:
        self.config, self.split = config, split

    def __len__(self) -> int:
        return self.config.samples if self.split == "train" else self.config.samples // 4

    def __getitem__(self, index: int) -> Sample:
        generator = seeded("waves", self.split, index)
        shape = int(torch.randint(len(SHAPES), (), generator=generator))
        chance = torch.rand(3, generator=generator)
        period = 12 * 4 ** float(chance[0])  # 12 to 48
        phase = (torch.arange(self.config.length) / period + chance[1]) % 1  # [length]
        wave = (0.7 + 0.6 * chance[2]) * _wave(SHAPES[shape], phase)
        noise = self.config.noise * torch.randn(self.config.length, generator=generator)
        return Sample(wave + noise, {"shape": shape, "period": period})


def _wave(shape: str, phase: Tensor) -> Tensor:
    """Values with a variance of about 1 at phases from 0 to 1."""
    match shape:
        case "sine":
            return math.sqrt(2) * torch.sin(2 * math.pi * phase)
        case "triangle":
            return math.sqrt(3) * (1 - 4 * (phase - 0.5).abs())
        case "square":
            return torch.where(phase < 0.5, 1.0, -1.0)
        case _:
            return math.sqrt(3) * (2 * phase - 1)


class TemplateName(Modality[TemplateNameConfig]):
    """Signals in patches of consecutive values, one token per patch."""

    contract, config_type = 1, TemplateNameConfig
    tasks: Sequence[Task] = (Task(label="shape", kind="class", classes=SHAPES), Task(label="period", kind="regression"))

    def __init__(self, config: TemplateNameConfig) -> None:
        super().__init__(config)
        if config.window % config.patch:
            raise ValueError(f"patch {config.patch} does not divide window {config.window}")
        if config.window > config.length:
            raise ValueError(f"window {config.window} is longer than a signal of length {config.length}")
        self.grid, self.views = (config.window // config.patch,), config.views
        check_masking(self.grid, config.masking)

    def dataset(self, split: Split) -> Samples:
        """Signals as float [length]."""
        return Waves(self.config, split)

    def embedding(self, dim: int) -> nn.Module:
        """[B, window] -> [B, N, dim]."""
        return patch_embedding("b (n p) -> b n p", self.config.patch, dim, p=self.config.patch)

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        """`mask_sets` sets of masks, by the strategy of the config."""
        masking = self.config.masking
        return [sample_masks(self.grid, masking, batch_size, generator) for _ in range(self.config.mask_sets)]

    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        """A window at a random position: [length] -> [window]."""
        start = int(torch.randint(len(inputs) - self.config.window + 1, (), generator=generator))
        return inputs[start : start + self.config.window]

    def evaluation_view(self, inputs: Tensor) -> Tensor:
        """The first window: [length] -> [window]."""
        return inputs[: self.config.window]
