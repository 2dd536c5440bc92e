"""Functions as users write them for a config: masks, targets, measures."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from jepa.encoder import TokenEncoder
from jepa.evaluate.splits import Examples, Splits
from jepa.masking import Masks


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


def nearest_mean(examples: Splits[Examples]) -> float:
    """Accuracy of the class whose mean is nearest."""
    labels = examples.train.labels
    means = torch.stack([examples.train.features[labels == label].mean(dim=0) for label in labels.unique()])
    guesses = labels.unique()[torch.cdist(examples.test.features, means).argmin(dim=1)]
    return float((guesses == examples.test.labels).float().mean())


def failing(examples: Splits[Examples]) -> float:
    raise ZeroDivisionError("no such luck")
