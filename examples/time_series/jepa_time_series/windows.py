"""Windows of recordings: cropping, missing channels and scaling."""

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from jepa.modality import BadSampleError, Samples
from jepa_time_series.embedding import View

_MEASURED = 200  # recordings on which scales are measured


def sensor(channel: str) -> str:
    """The sensor of a channel: acc for acc_x, pressure for pressure."""
    return channel.rpartition("_")[0] or channel


def crop(recording: Tensor, length: int, generator: Generator | None) -> Tensor:
    """Part of a recording: [C, T'] -> [C, length]; the middle, or a uniformly random part if a generator is given."""
    spare = recording.shape[1] - length
    start = spare // 2 if generator is None else int(torch.randint(spare + 1, (), generator=generator))
    return recording[:, start : start + length]


def view(values: Tensor, scales: Tensor, centred: Tensor) -> View:
    """Values [C, T] in physical units, NaN in missing channels -> scaled values with zeros there, present [C].

    scales: [C], divisors. centred: bool [C], channels whose mean is subtracted.
    """
    present = ~values[:, 0].isnan()
    scaled = _centred(values, centred) / scales.unsqueeze(1)
    return scaled.masked_fill(~present.unsqueeze(1), 0.0), present


def _centred(values: Tensor, centred: Tensor) -> Tensor:
    return values - torch.where(centred, values.mean(dim=1), 0.0).unsqueeze(1)


def measured_scales(samples: Samples, channels: Sequence[str], centred: Tensor) -> dict[str, float]:
    """Root mean square of each sensor's values over some of the recordings; 1 if it is 0 or unknown."""
    squares: dict[str, list[Tensor]] = {sensor(channel): [] for channel in channels}
    for index in range(0, len(samples), -(-len(samples) // _MEASURED)):
        try:
            recording = samples[index].inputs
        except BadSampleError:  # counted when the run reads it
            continue
        for channel, values in zip(channels, _centred(recording, centred), strict=True):
            squares[sensor(channel)].append(values[~values.isnan()].double().square())
    sizes = {name: float(torch.cat([*parts, torch.zeros(0)]).mean().sqrt()) for name, parts in squares.items()}
    return {name: size if size > 0 else 1.0 for name, size in sizes.items()}  # NaN if there are no values


def channel_scales(channels: Sequence[str], scales: Mapping[str, float]) -> Tensor:
    """The scale of each channel, which is its sensor's: [C]; raises ValueError if a sensor has none."""
    if missing := sorted({sensor(channel) for channel in channels} - set(scales)):
        raise ValueError(f"scales has no '{missing[0]}'; it needs a value for every sensor, or null to measure them")
    return torch.tensor([scales[sensor(channel)] for channel in channels])


def statistics(values: Tensor, present: Tensor) -> Tensor:
    """Mean, standard deviation, its logarithm, and presence of each channel: [C, T], [C] -> [4 C]."""
    deviation = values.std(dim=1)
    logarithm = deviation.clamp_min(1e-3).log() * present
    return torch.cat((values.mean(dim=1), deviation, logarithm, present.float()))
