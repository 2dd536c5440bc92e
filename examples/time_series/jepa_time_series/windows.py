"""From recordings to windows: what part of one is seen, which channels it has, and in which units."""

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from jepa.modality import BadSampleError, Samples
from jepa_time_series.embedding import View

_MEASURED = 200  # recordings that tell the size of a sensor's values


def sensor(channel: str) -> str:
    """What a channel is an axis of: acc of acc_x, pressure of pressure."""
    return channel.rpartition("_")[0] or channel


def crop(recording: Tensor, length: int, generator: Generator | None) -> Tensor:
    """Part of a recording: [C, T'] -> [C, length]; the middle, or with a generator any part that fits alike."""
    spare = recording.shape[1] - length
    start = spare // 2 if generator is None else int(torch.randint(spare + 1, (), generator=generator))
    return recording[:, start : start + length]


def view(values: Tensor, scales: Tensor, centred: Tensor) -> View:
    """Values [C, T] in their units, not a number in channels that there are not -> numbers of moderate size, present.

    scales: [C], by which values are divided. centred: bool [C], of which channels only the changes count.
    """
    present = ~values[:, 0].isnan()
    scaled = _levelled(values, centred) / scales.unsqueeze(1)
    return scaled.masked_fill(~present.unsqueeze(1), 0.0), present


def _levelled(values: Tensor, centred: Tensor) -> Tensor:
    return values - torch.where(centred, values.mean(dim=1), 0.0).unsqueeze(1)


def measured_scales(samples: Samples, channels: Sequence[str], centred: Tensor) -> dict[str, float]:
    """Of each sensor the root mean square of its values in some recordings, 1 where these do not tell."""
    squares: dict[str, list[Tensor]] = {sensor(channel): [] for channel in channels}
    for index in range(0, len(samples), -(-len(samples) // _MEASURED)):
        try:
            recording = samples[index].inputs
        except BadSampleError:  # counted and listed when the run meets it
            continue
        for channel, values in zip(channels, _levelled(recording, centred), strict=True):
            squares[sensor(channel)].append(values[~values.isnan()].double().square())
    sizes = {name: float(torch.cat([*parts, torch.zeros(0)]).mean().sqrt()) for name, parts in squares.items()}
    return {name: size if size > 0 else 1.0 for name, size in sizes.items()}  # of no values the size is not a number


def of_channels(channels: Sequence[str], scales: Mapping[str, float]) -> Tensor:
    """The scale of every channel, which is that of its sensor: [C]; raises ValueError where a sensor has none."""
    if missing := sorted({sensor(channel) for channel in channels} - set(scales)):
        raise ValueError(f"scales names no '{missing[0]}'; it needs one for every sensor, or null to measure them")
    return torch.tensor([scales[sensor(channel)] for channel in channels])


def statistics(values: Tensor, present: Tensor) -> Tensor:
    """Of every channel mean, deviation and its logarithm, and whether it is there: [C, T], [C] -> [4 C]."""
    deviation = values.std(dim=1)
    logarithm = deviation.clamp_min(1e-3).log() * present
    return torch.cat((values.mean(dim=1), deviation, logarithm, present.float()))
