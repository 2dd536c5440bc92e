"""Measurements of a network in the middle of its training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def measuring(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode without gradients; modes and random state are afterwards as before."""
    modes = [(module, module.training) for module in network.modules()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        network.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
