"""A memory cache of decoded samples."""

import sys
from typing import Any, Protocol, Self, runtime_checkable

from torch.utils._pytree import tree_leaves

from jepa.data.bad_files import name_of
from jepa.data.shared import SharedInputs, shared_inputs
from jepa.distributed import World
from jepa.modality import Sample, Samples

_SURVEY = 64  # samples after which the size of the set is estimated


@runtime_checkable
class PreparedSamples(Samples, Protocol):
    """A data set that prepares samples for staying in memory."""

    def expected_bytes(self, limit: float) -> float:
        """Memory that all samples would take, as estimated from a few, which are always the same ones.

        Whatever surely lies below `limit` need not be estimated.
        """
        ...

    def read_once(self, index: int, /) -> Sample:
        """The sample without preparation, as it will not stay in memory."""
        ...


class SampleCache:
    """Keeps decoded samples in memory up to a limit, so that small data sets are decoded once and not every epoch.

    If less than half of the set will fit, nothing is kept: a sample would rarely be found, as each process meets all
    samples in turn. shared: memory that the processes of this machine fill together; samples from it have no labels.
    """

    def __init__(self, samples: Samples, megabytes: float, shared: SharedInputs | None = None) -> None:
        self.samples, self.shared, self.limit = samples, shared, megabytes * 2**20
        self.cached: dict[int, Sample] = {}
        self.bytes_left, self.is_useful = self.limit, megabytes > 0
        self.prepared = samples if isinstance(samples, PreparedSamples) else None
        # Decided before the first sample: whether a damaged video is bad may depend on how much of it is decoded.
        if self.prepared and self.is_useful:
            self.is_useful = self.prepared.expected_bytes(self.limit) <= 2 * self.limit
        self._read, self._read_bytes = 0, 0

    @classmethod
    def of_machine(cls, samples: Samples, megabytes: int, world: World, loaders: int) -> Self:
        """A cache that all processes of this machine fill together; every process must call, see `shared_inputs`."""
        return cls(samples, megabytes, shared_inputs(world, loaders, len(samples), megabytes))

    def __len__(self) -> int:
        return len(self.samples)

    def name_of(self, index: int) -> str:
        """The name of a sample."""
        return name_of(self.samples, index)

    def __getitem__(self, index: int, /) -> Sample:
        kept = self._kept(index)
        if kept is not None:
            return kept
        if not self.is_useful:
            return self.prepared.read_once(index) if self.prepared else self.samples[index]
        sample = self.samples[index]
        size = sum(map(size_of, tree_leaves(sample.inputs)))
        self._survey(size)
        if self.is_useful:
            self._keep(index, sample, size)
        return sample

    def _kept(self, index: int) -> Sample | None:
        if self.shared is None or not self.is_useful:
            return self.cached.get(index)
        inputs = self.shared.get(index)
        return None if inputs is None else Sample(inputs)

    def _keep(self, index: int, sample: Sample, size: int) -> None:
        if self.shared is not None:
            self.shared.put(index, sample.inputs)
        elif size <= self.bytes_left:
            self.cached[index] = sample
            self.bytes_left -= size

    def _survey(self, size: int) -> None:
        self._read, self._read_bytes = self._read + 1, self._read_bytes + size
        limit = self.limit if self.shared is None else self.shared.limit
        too_large = self._read_bytes / self._read * len(self.samples) > 2 * limit
        if self._read == _SURVEY and too_large and not self.prepared:
            self.is_useful, self.bytes_left = False, 0.0
            self.cached.clear()


def size_of(leaf: Any) -> int:
    """Bytes of one leaf of a sample: exact for tensors, arrays, text and bytes; of other objects without contents."""
    return int(leaf.nbytes) if hasattr(leaf, "nbytes") else sys.getsizeof(leaf)
