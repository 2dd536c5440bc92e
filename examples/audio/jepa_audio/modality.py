"""Sound: patches of a log-mel spectrogram, from wav files or from instruments that the package plays itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Generator, Tensor, nn

from jepa.encoder import patch_embedding
from jepa.masking import MaskingConfig, Masks, RandomMaskConfig, check_masking, sample_masks
from jepa.modality import DataConfig, Modality, Split, Task
from jepa_audio.folder import Recordings, open_recordings
from jepa_audio.orchestra import Orchestra, OrchestraConfig
from jepa_audio.spectrogram import LogMel, denormalise, normalise, painted
from jepa_audio.waves import read_wave

_FLOOR = (32, 16)  # bands and times of the floors


@dataclass(frozen=True, kw_only=True)
class AudioConfig(DataConfig):
    """Where sound comes from and how it becomes tokens.

    source: `instruments`, which need nothing, or `folder`, which needs `root`. Frames of `window` samples, one every
    `hop`, have their power in `bands`; a training view is from anywhere in a recording, and up to `gain_db` louder or
    softer. patch: bands and frames a token. masking: a strategy for each set of masks, shared out over `views`.
    """

    source: Literal["instruments", "folder"] = "instruments"
    sample_rate: PositiveInt = 16_000  # Hz
    clip_seconds: PositiveFloat = 0.8  # of a view
    window: PositiveInt = 1024
    hop: PositiveInt = 200
    bands: PositiveInt = 64
    patch: tuple[PositiveInt, PositiveInt] = (8, 8)
    gain_db: NonNegativeFloat = 6.0
    views: PositiveInt = 1
    masking: Annotated[tuple[MaskingConfig, ...], Field(min_length=1)] = (RandomMaskConfig(),)
    instruments: OrchestraConfig = field(default_factory=OrchestraConfig)


class Audio(Modality[AudioConfig]):
    """Spectrograms as sequences of patches: rows of bands, the highest first, and columns of time."""

    contract, config_type, forecast_axis = 1, AudioConfig, 1

    def __init__(self, config: AudioConfig) -> None:
        super().__init__(config)
        (high, long), frames = config.patch, round(config.clip_seconds * config.sample_rate / config.hop)
        if config.bands % high or frames % long or not frames:
            raise ValueError(f"patch {high} x {long} does not divide {config.bands} bands x {frames} frames")
        if (config.source == "folder") != (config.root is not None):
            raise ValueError("data.root, a folder of wav files, goes with data.source=folder, and neither alone")
        if len(config.masking) % config.views:
            raise ValueError(f"masking: {len(config.masking)} sets do not divide among {config.views} views")
        self.grid, self.frames, self.views = (config.bands // high, frames // long), frames, config.views
        for strategy in config.masking:
            check_masking(self.grid, strategy)
        self.log_mel = LogMel(config.sample_rate, config.window, config.hop, config.bands)

    @cached_property
    def tasks(self) -> Sequence[Task]:  # type: ignore[override]
        """Classes where there are any; of the instruments also the pitch in semitones and the onset in seconds."""
        classes = self.dataset("train").classes
        labelled = [Task(label="class", kind="class", classes=classes)] if classes else []
        numbers = ("pitch", "onset") if self.config.source == "instruments" else ()
        return [*labelled, *(Task(label=label, kind="regression") for label in numbers)]

    def dataset(self, split: Split) -> Orchestra | Recordings:
        """Whole recordings as float [bands, T], in decibels: a wave is transformed once, not once a view."""
        if self.config.root is None:
            return Orchestra(self.config.instruments, split, self._read)
        return open_recordings(self.config.root.expanduser(), split, self._read)

    def embedding(self, dim: int) -> nn.Module:
        """[B, 1, bands, frames] -> [B, N, dim]."""
        p, q = self.config.patch
        return patch_embedding("b c (f p) (t q) -> b (f t) (c p q)", p * q, dim, p=p, q=q)

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        """A set of masks by each strategy of the config."""
        return [sample_masks(self.grid, strategy, batch_size, generator) for strategy in self.config.masking]

    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        """Some time of a recording, louder or softer: [bands, T] -> [1, bands, frames]."""
        place, gain = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        start = int(place * (inputs.shape[1] - self.frames + 1))
        return self._view(inputs + self.config.gain_db * (2 * gain - 1), start)

    def evaluation_view(self, inputs: Tensor) -> Tensor:
        """The middle of a recording: [bands, T] -> [1, bands, frames]."""
        return self._view(inputs, (inputs.shape[1] - self.frames) // 2)

    def example_view(self) -> Tensor:
        """Some loudness everywhere: [1, bands, frames]."""
        return torch.zeros(1, self.config.bands, self.frames)

    def floors(self, view: Tensor) -> Mapping[str, Tensor]:
        """The spectrogram, averaged down to at most 32 bands and 16 times; and its mean over time alone."""
        small = min(_FLOOR[0], view.shape[1]), min(_FLOOR[1], view.shape[2])
        return {"raw_input": F.adaptive_avg_pool2d(view, small).flatten(), "mean_spectrum": view.mean(dim=2).flatten()}

    def picture(self, view: Tensor) -> Tensor:
        """[1, bands, frames] -> uint8 [H, W, 3], bright where it is loud."""
        return painted(denormalise(view[0]))

    def _view(self, decibels: Tensor, start: int) -> Tensor:
        return normalise(decibels[:, start : start + self.frames]).unsqueeze(0)

    def _read(self, path: Path) -> Tensor:
        """A file as decibels [bands, T]; where it is shorter than a view, silence follows."""
        return self.log_mel(read_wave(path, self.config.sample_rate, shortest=self.log_mel.samples(self.frames)))
