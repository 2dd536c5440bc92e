"""Windows of multichannel sensor recordings; a token is a segment of one channel, and samples may lack channels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Generator, Tensor, nn

from jepa.config.effects import Use
from jepa.masking import FunctionMaskConfig, MaskingConfig, Masks, check_masking, sample_masks
from jepa.modality import DataConfig, Modality, Samples, Split, Task
from jepa_time_series import curves, windows
from jepa_time_series.activities import ACTIVITIES, CHANNELS, Activities, ActivitiesConfig
from jepa_time_series.embedding import ChannelEmbedding, View, spectrum
from jepa_time_series.recordings import RecordingFormat, open_recordings
from modalities.storage.labels import LabelSettings
from modalities.storage.sources import by_ending, with_source
from modalities.storage.splits import StoredSplit

_SPARE = 2.0  # seconds by which generated recordings are longer than a window
_MASKING = FunctionMaskConfig(function="jepa_time_series.masks:within_channels", options={"ratio": 2 / 3})


@dataclass(frozen=True, kw_only=True)
class TimeSeriesConfig(LabelSettings, DataConfig):
    """Where recordings come from and how they become tokens.

    source: `activities` (generated) or `folder` (see recordings.py), which needs `root`; null means `folder` with a
    `root`. channels: all that a sample may have. seconds, rate: length of a window, and samples per second. patch:
    samples per token. scales: divisor of each sensor's values (`acc` has the channels acc_x, ...), null to measure it
    on training recordings. centred: sensors whose mean over a window is subtracted. mask_sets, views: mask sets and
    random windows per sample and step; mask set i applies to view i mod `views`.
    """

    completed: ClassVar[Sequence[str]] = ("source", "scales")
    world: ClassVar[str] = "activities"
    training_only: ClassVar[Sequence[str]] = ("mask_sets", "views", "masking")

    source: Literal["activities", "folder"] | None = None
    channels: tuple[str, ...] = CHANNELS
    seconds: PositiveFloat = 6.0
    rate: PositiveFloat = 32.0
    patch: PositiveInt = 32
    scales: Mapping[str, PositiveFloat] | None = None
    centred: tuple[str, ...] = ("pressure",)
    mask_sets: PositiveInt = 1
    views: PositiveInt = 1
    masking: MaskingConfig = field(default_factory=lambda: _MASKING)
    activities: ActivitiesConfig = field(default_factory=ActivitiesConfig)

    def no_effect(self, use: Use) -> dict[str, str]:
        """Settings without effect, with the reason."""
        found, sensors = super().no_effect(use), {windows.sensor(channel) for channel in self.channels}
        if self.centred and not sensors & set(self.centred):
            found["centred"] = "data.channels has none of these sensors"
        return found


class TimeSeries(Modality[TimeSeriesConfig]):
    """A grid of channels x time; tokens of channels that a sample lacks are absent, not zero."""

    contract, config_type, forecast_axis = 1, TimeSeriesConfig, 1

    def __init__(self, config: TimeSeriesConfig) -> None:
        config = with_source(config, [by_ending("recordings", "folder", ".csv")])
        super().__init__(config)
        self.length = round(config.seconds * config.rate)
        if self.length % config.patch:
            window = f"a window, {config.seconds:g} s at {config.rate:g} Hz"
            raise ValueError(f"patch {config.patch} does not divide the {self.length} samples of {window}")
        if config.source == "activities" and config.channels != CHANNELS:
            raise ValueError(f"source 'activities' has the channels {', '.join(CHANNELS)}, in this order")
        if config.mask_sets % config.views:
            raise ValueError(f"mask_sets {config.mask_sets} do not divide among {config.views} views")
        self.grid, self.views = (len(config.channels), self.length // config.patch), config.views
        check_masking(self.grid, config.masking)
        self.centred = torch.tensor([windows.sensor(channel) in config.centred for channel in config.channels])
        scales = config.scales or windows.measured_scales(self.dataset("train"), config.channels, self.centred)
        self.config = replace(config, scales=scales)  # the run saves the measured scales
        self.scales = windows.channel_scales(config.channels, scales)

    @cached_property
    def tasks(self) -> Sequence[Task]:  # type: ignore[override]
        """Activity and steps per second, or the classes of a folder."""
        if self.config.source == "activities":
            return [Task(label="class", kind="class", classes=ACTIVITIES), Task(label="cadence", kind="regression")]
        classes = self._open("train").classes
        return [Task(label="class", kind="class", classes=classes)] if classes else []

    def dataset(self, split: Split) -> Samples:
        """Recordings, float32 [C, T], at least as long as a window."""
        if self.config.source == "folder":
            return self._open(split).samples
        return Activities(self.config.activities, split, self.config.seconds + _SPARE, self.config.rate)

    def embedding(self, dim: int) -> nn.Module:
        """(values [B, C, T], present [B, C]) -> [B, N, dim]."""
        return ChannelEmbedding(self.config.patch, dim)

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        """Mask sets on the whole grid; absent tokens are neither encoded nor predicted."""
        masking = self.config.masking
        return [sample_masks(self.grid, masking, batch_size, generator) for _ in range(self.config.mask_sets)]

    def training_view(self, inputs: Tensor, generator: Generator) -> View:
        """A random window of a recording."""
        return windows.view(windows.crop(inputs, self.length, generator), self.scales, self.centred)

    def evaluation_view(self, inputs: Tensor) -> View:
        """The window in the middle."""
        return windows.view(windows.crop(inputs, self.length, None), self.scales, self.centred)

    def baselines(self, view: View) -> Mapping[str, Tensor]:
        """Values, with zeros for absent channels; statistics of each channel; spectra averaged over time."""
        values, present = view
        spectra = spectrum(values.unflatten(1, (-1, self.config.patch))).mean(dim=1)  # [C, patch / 2 + 1]
        statistics = windows.statistics(values, present)
        return {"raw_input": values.flatten(), "channel_statistics": statistics, "spectra": spectra.flatten()}

    def picture(self, view: View) -> Tensor:
        """Curves, one row per channel."""
        return curves.picture(view)

    def _open(self, split: Split) -> StoredSplit:
        assert self.config.root is not None  # checked in __init__
        target = RecordingFormat(self.config.channels, self.config.rate, self.length)
        return open_recordings(self.config.root, split, target, self.config.reads_labels)
