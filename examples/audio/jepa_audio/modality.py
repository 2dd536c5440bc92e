"""Sound as patches of log-mel spectrograms, from wav files or from generated instruments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Generator, Tensor, nn

from jepa.encoder import patch_embedding
from jepa.masking import MaskingConfig, Masks, RandomMaskConfig, check_masking, sample_masks
from jepa.modality import DataConfig, Modality, Samples, Split, Task
from jepa_audio.instruments import INSTRUMENTS
from jepa_audio.orchestra import Orchestra, OrchestraConfig
from jepa_audio.spectrogram import LogMel, denormalise, normalise, spectrogram_image
from jepa_audio.waves import read_wave
from modalities.storage.folders import FileKind, open_folder
from modalities.storage.labels import LabelSettings
from modalities.storage.sources import by_ending, with_source
from modalities.storage.splits import StoredSplit

_WAVES = FileKind("recordings", (".wav",))


@dataclass(frozen=True, kw_only=True)
class AudioConfig(LabelSettings, DataConfig):
    """Where sound comes from and how it becomes tokens.

    source: `instruments` (generated) or `folder`, which needs `root`; null means `folder` with a `root`. views: random
    parts of a recording per step. masking: one strategy per mask set; mask set i applies to view i mod `views`.
    """

    completed: ClassVar[Sequence[str]] = ("source",)
    world: ClassVar[str] = "instruments"
    training_only: ClassVar[Sequence[str]] = ("gain_db", "views", "masking")

    source: Literal["instruments", "folder"] | None = None
    sample_rate: PositiveInt = 16_000  # Hz
    clip_seconds: PositiveFloat = 0.8  # length of a view
    window: PositiveInt = 1024  # samples in a frame
    hop: PositiveInt = 200  # samples from one frame to the next
    bands: PositiveInt = 64
    patch: tuple[PositiveInt, PositiveInt] = (8, 8)  # bands x frames
    gain_db: NonNegativeFloat = 6.0  # training views are up to this much louder or softer
    views: PositiveInt = 1
    masking: Annotated[tuple[MaskingConfig, ...], Field(min_length=1)] = (RandomMaskConfig(),)
    instruments: OrchestraConfig = field(default_factory=OrchestraConfig)


class Audio(Modality[AudioConfig]):
    """Spectrograms as grids of patches: rows are bands, the highest first; columns are time."""

    contract, config_type, forecast_axis = 1, AudioConfig, 1

    def __init__(self, config: AudioConfig) -> None:
        config = with_source(config, [by_ending("sound", "folder", *_WAVES.extensions)])
        super().__init__(config)
        (high, long), frames = config.patch, round(config.clip_seconds * config.sample_rate / config.hop)
        if config.bands % high or frames % long or not frames:
            raise ValueError(f"patch {high} x {long} does not divide {config.bands} bands x {frames} frames")
        if len(config.masking) % config.views:
            raise ValueError(f"masking: {len(config.masking)} sets do not divide among {config.views} views")
        self.grid, self.frames, self.views = (config.bands // high, frames // long), frames, config.views
        for strategy in config.masking:
            check_masking(self.grid, strategy)
        self.log_mel = LogMel(config.sample_rate, config.window, config.hop, config.bands)

    @cached_property
    def tasks(self) -> Sequence[Task]:  # type: ignore[override]
        """Classes if there are any; for the instruments also pitch in semitones and onset in seconds."""
        classes = INSTRUMENTS if self.config.source == "instruments" else self._open("train").classes
        tasks = [Task(label="class", kind="class", classes=classes)] if classes else []
        numbers = ("pitch", "onset") if self.config.source == "instruments" else ()
        return tasks + [Task(label=label, kind="regression") for label in numbers]

    def dataset(self, split: Split) -> Samples:
        """Whole recordings in decibels, float [bands, T]: a wave is transformed once, not once per view."""
        if self.config.source == "instruments":
            return Orchestra(self.config.instruments, split, self._read)
        return self._open(split).samples

    def embedding(self, dim: int) -> nn.Module:
        """[B, 1, bands, frames] -> [B, N, dim]."""
        p, q = self.config.patch
        return patch_embedding("b c (f p) (t q) -> b (f t) (c p q)", p * q, dim, p=p, q=q)

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        """One mask set per strategy of the config."""
        return [sample_masks(self.grid, strategy, batch_size, generator) for strategy in self.config.masking]

    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        """A random part of a recording, louder or softer: [bands, T] -> [1, bands, frames]."""
        position, gain = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        start = int(position * (inputs.shape[1] - self.frames + 1))
        return normalise(inputs[None, :, start : start + self.frames] + self.config.gain_db * (2 * gain - 1))

    def evaluation_view(self, inputs: Tensor) -> Tensor:
        """The middle of a recording: [bands, T] -> [1, bands, frames]."""
        start = (inputs.shape[1] - self.frames) // 2
        return normalise(inputs[None, :, start : start + self.frames])

    def example_view(self) -> Tensor:
        """The same loudness everywhere: [1, bands, frames]."""
        return torch.zeros(1, self.config.bands, self.frames)

    def baselines(self, view: Tensor) -> Mapping[str, Tensor]:
        """The spectrogram, averaged to at most 32 bands x 16 times; and its mean over time."""
        small = min(32, view.shape[1]), min(16, view.shape[2])
        return {"raw_input": F.adaptive_avg_pool2d(view, small).flatten(), "mean_spectrum": view.mean(dim=2).flatten()}

    def picture(self, view: Tensor) -> Tensor:
        """[1, bands, frames] -> uint8 [H, W, 3], bright where loud."""
        return spectrogram_image(denormalise(view[0]))

    def _open(self, split: Split) -> StoredSplit:
        assert self.config.root is not None  # checked in __init__
        return open_folder(self.config.root.expanduser(), split, _WAVES, self._read, None, self.config.reads_labels)

    def _read(self, path: Path) -> Tensor:
        """A file in decibels [bands, T]; one shorter than a view is padded with silence."""
        return self.log_mel(read_wave(path, self.config.sample_rate, shortest=self.log_mel.samples(self.frames)))
