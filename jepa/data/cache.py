"""A memory cache of decoded samples."""

import sys
from typing import Any

from torch.utils._pytree import tree_leaves

from jepa.modality import Sample, Samples


class SampleCache:
    """Keeps decoded samples in memory up to a limit, so that small data sets are decoded once and not every epoch."""

    def __init__(self, samples: Samples, megabytes: float) -> None:
        self.samples, self.bytes_left = samples, megabytes * 2**20
        self.cached: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        sample = self.cached.get(index)
        if sample is None:
            sample = self.samples[index]
            size = sum(map(_size, tree_leaves(sample.inputs)))
            if size <= self.bytes_left:
                self.cached[index] = sample
                self.bytes_left -= size
        return sample


def _size(leaf: Any) -> int:
    """Bytes of one leaf of a sample: exact for tensors, arrays, text and bytes; of other objects without contents."""
    return int(leaf.nbytes) if hasattr(leaf, "nbytes") else sys.getsizeof(leaf)
