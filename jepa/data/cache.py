"""Decoded samples kept in memory, up to a limit."""

import sys
from typing import Any

from torch.utils._pytree import tree_leaves

from jepa.modality import Sample, Samples


class SampleCache:
    """Samples that stay decoded in memory up to a limit: small data sets are decoded once, not once an epoch."""

    def __init__(self, samples: Samples, megabytes: float) -> None:
        self.samples, self.bytes_left = samples, megabytes * 2**20
        self.known: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        sample = self.known.get(index)
        if sample is None:
            sample = self.samples[index]
            size = sum(map(_size, tree_leaves(sample.inputs)))
            if size <= self.bytes_left:
                self.known[index] = sample
                self.bytes_left -= size
        return sample


def _size(leaf: Any) -> int:
    """Bytes of a part of a sample: of tensors and arrays, of text and files as they are; of others what is told."""
    return int(leaf.nbytes) if hasattr(leaf, "nbytes") else sys.getsizeof(leaf)
