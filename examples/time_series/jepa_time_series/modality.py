"""Windows of multichannel sensors: a token is a stretch of one channel, and samples have some of the channels only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Generator, Tensor, nn

from jepa.masking import FunctionMaskConfig, MaskingConfig, Masks, check_masking, sample_masks
from jepa.modality import DataConfig, Modality, Samples, Split, Task
from jepa_time_series import curves, windows
from jepa_time_series.activities import ACTIVITIES, CHANNELS, Activities, ActivitiesConfig
from jepa_time_series.embedding import ChannelEmbedding, View, spectrum
from jepa_time_series.recordings import Layout, Recordings, class_names

_SPARE = 2.0  # seconds that generated recordings are longer than a window
_MASKING = FunctionMaskConfig(function="jepa_time_series.masks:within_channels", options={"ratio": 2 / 3})


@dataclass(frozen=True, kw_only=True)
class TimeSeriesConfig(DataConfig):
    """Where recordings come from and how they become tokens.

    source: `activities` (generated), or `folder` with `root`, see recordings.py. channels: the names of all that a
    sample may have. seconds, rate: of a window, which is cut from a recording at random in training; rate in Hz. patch:
    samples of a token. scales: for each sensor, acc of acc_x, what its values are divided by to be of the size of 1;
    null to measure it on training recordings. centred: sensors of which only the changes within a window count.
    mask_sets, views: sets of masks, and windows, of a sample a step.
    """

    completed: ClassVar[Sequence[str]] = ("scales",)

    source: str = "activities"
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


class TimeSeries(Modality[TimeSeriesConfig]):
    """The grid has an axis of channels and one of time; what a sample lacks of it is absent, not zero."""

    contract = 1
    config_type = TimeSeriesConfig
    forecast_axis = 1

    def __init__(self, config: TimeSeriesConfig) -> None:
        super().__init__(config)
        self.length = round(config.seconds * config.rate)
        if self.length % config.patch:
            window = f"a window, {config.seconds:g} s at {config.rate:g} Hz"
            raise ValueError(f"patch {config.patch} does not divide the {self.length} samples of {window}")
        if config.source not in ("activities", "folder"):
            raise ValueError(f"no source '{config.source}'; there are activities and folder")
        if config.source == "folder" and config.root is None:
            raise ValueError("source 'folder' needs data.root, the folder that holds train, validation and test")
        if config.source == "activities" and config.channels != CHANNELS:
            raise ValueError(f"source 'activities' has the channels {', '.join(CHANNELS)}, in this order")
        if config.mask_sets % config.views:
            raise ValueError(f"mask_sets {config.mask_sets} do not divide among {config.views} views")
        self.grid, self.views = (len(config.channels), self.length // config.patch), config.views
        check_masking(self.grid, config.masking)
        self.centred = torch.tensor([windows.sensor(channel) in config.centred for channel in config.channels])
        scales = config.scales or windows.measured_scales(self.dataset("train"), config.channels, self.centred)
        self.config = replace(config, scales=scales)  # a run keeps what was measured
        self.scales = windows.of_channels(config.channels, scales)

    @cached_property
    def tasks(self) -> Sequence[Task]:  # type: ignore[override]
        """Activities and steps a second, or the classes of a folder."""
        if self.config.root is None or self.config.source == "activities":
            return [Task(label="class", kind="class", classes=ACTIVITIES), Task(label="cadence", kind="regression")]
        names = class_names(self.config.root)
        return [Task(label="class", kind="class", classes=names)] if names else []

    def dataset(self, split: Split) -> Samples:
        """Recordings, float32 [C, T], as long as a window or longer."""
        config = self.config
        if config.root is None or config.source == "activities":
            return Activities(config.activities, split, config.seconds + _SPARE, config.rate)
        return Recordings(config.root, split, Layout(config.channels, config.rate, self.length))

    def embedding(self, dim: int) -> nn.Module:
        """(values [B, C, T], present [B, C]) -> [B, N, dim]."""
        return ChannelEmbedding(self.config.patch, dim)

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        """Sets of masks on the whole grid; what a sample lacks of its part is neither seen nor asked for."""
        masking = self.config.masking
        return [sample_masks(self.grid, masking, batch_size, generator) for _ in range(self.config.mask_sets)]

    def training_view(self, inputs: Tensor, generator: Generator) -> View:
        """A window from anywhere in a recording."""
        return windows.view(windows.crop(inputs, self.length, generator), self.scales, self.centred)

    def evaluation_view(self, inputs: Tensor) -> View:
        """The window in the middle."""
        return windows.view(windows.crop(inputs, self.length, None), self.scales, self.centred)

    def floors(self, view: View) -> Mapping[str, Tensor]:
        """The values, zeros where there are none; mean and deviation of each channel; spectra, averaged over time."""
        values, present = view
        spectra = spectrum(values.unflatten(1, (-1, self.config.patch))).mean(dim=1)  # [C, patch / 2 + 1]
        statistics = windows.statistics(values, present)
        return {"raw_input": values.flatten(), "channel_statistics": statistics, "spectra": spectra.flatten()}

    def picture(self, view: View) -> Tensor:
        """Curves, a row for each channel."""
        return curves.picture(view)
