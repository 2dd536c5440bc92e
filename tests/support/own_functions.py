"""Functions as users write them for a config: masks, targets, metrics, and a modality with many labels."""

from typing import Any

import torch
import torch.nn.functional as F
from tiny import Noise
from torch import Generator, Tensor

from jepa.encoder import TokenEncoder
from jepa.evaluate.splits import Examples, Splits
from jepa.masking import Masks
from jepa.modality import Sample, Samples, Split, Task


def halves(grid: tuple[int, ...], batch_size: int, generator: Generator, swap: float = 0.0) -> Masks:
    """Every other token is hidden; with the chance `swap`, the others."""
    tokens = torch.arange(torch.Size(grid).numel())
    even, odd = tokens[::2].expand(batch_size, -1), tokens[1::2].expand(batch_size, -1)
    swapped = (torch.rand(batch_size, 1, generator=generator) < swap).expand_as(even)
    return Masks(torch.where(swapped, odd, even), torch.where(swapped, even, odd).unsqueeze(1))


def overlapping(grid: tuple[int, ...], batch_size: int, generator: Generator) -> Masks:
    tokens = torch.arange(torch.Size(grid).numel()).expand(batch_size, -1)
    return Masks(tokens, tokens.unsqueeze(1))


def patches(inputs: Tensor, encoder: TokenEncoder) -> Tensor:
    """What `pixels` predicts, written another way: [B, C, H, W] -> [B, N, C p p]."""
    size = 2
    cut = F.unfold(inputs, size, stride=size).transpose(1, 2)
    return F.layer_norm(cut, cut.shape[-1:])


def last_layer(inputs: Any, encoder: TokenEncoder) -> Tensor:
    """What `latent` predicts by default."""
    tokens = encoder(inputs)
    return F.layer_norm(tokens, tokens.shape[-1:])


def of_sample(inputs: Any, encoder: TokenEncoder) -> Tensor:
    return encoder(inputs).mean(dim=1)


def of_numpy(inputs: Any, encoder: TokenEncoder) -> Any:
    return encoder(inputs).numpy()


def of_classes(inputs: Any, encoder: TokenEncoder) -> Tensor:
    return encoder(inputs).argmax(dim=-1, keepdim=True)


def in_place(inputs: Tensor, encoder: TokenEncoder) -> Tensor:
    return encoder(inputs.sub_(inputs.mean()))


def by_value(inputs: Tensor, encoder: TokenEncoder) -> Tensor:
    return encoder(inputs) if float(inputs.mean()) > 0 else encoder(-inputs)


def unseeded(grid: tuple[int, ...], batch_size: int, generator: Generator) -> Masks:
    order = torch.rand(batch_size, torch.Size(grid).numel()).argsort(dim=1)
    return Masks(order[:, :4].sort(dim=1).values, order[:, 4:].sort(dim=1).values.unsqueeze(1))


def nearest_mean(examples: Splits[Examples]) -> float:
    """Accuracy of the class whose mean is nearest."""
    labels = examples.train.labels
    means = torch.stack([examples.train.features[labels == label].mean(dim=0) for label in labels.unique()])
    guesses = labels.unique()[torch.cdist(examples.test.features, means).argmin(dim=1)]
    return float((guesses == examples.test.labels).float().mean())


def failing(examples: Splits[Examples]) -> float:
    raise ZeroDivisionError("no such luck")


class Placed(Noise):
    """Noise of which a map is known, and a name."""

    tasks = (Task(label="place", kind="map"),)

    def dataset(self, split: Split) -> Samples:
        return Named(super().dataset(split))


class Named:
    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        known: Any = {**sample.labels, "place": sample.inputs[0, ::2, ::2].flatten(), "name": f"number {index}"}
        return Sample(sample.inputs, known)


class Badged(Placed):
    """Noise with a task whose label is text."""

    tasks = (Task(label="name", kind="regression"),)


class Catalogued(Noise):
    """Noise whose classes are ids, or numbers in the same order."""

    tasks = (Task(label="id", kind="class"), Task(label="class", kind="class"))

    def dataset(self, split: Split) -> Samples:
        return Catalogue(super().dataset(split))


class Catalogue(Named):
    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        return Sample(sample.inputs, {"id": (30_000, 4_000_000_001)[index % 2], **sample.labels})
