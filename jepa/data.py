"""Batches as a function of (seed, step, rank): nothing is counted, so nothing has to be restored."""

import hashlib
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset, default_collate

from jepa.distributed import World
from jepa.masking import Masks
from jepa.modality import BadSampleError, Modality, Sample, Samples, Split


class DataError(ValueError):
    """The data cannot be used as configured; its message is one sentence for the user."""


def open_split(modality: Modality[Any], split: Split) -> Samples:
    """Samples of a split; raises DataError for folders that are missing or hold nothing of use."""
    try:
        samples = modality.dataset(split)
    except (OSError, ValueError) as error:
        raise DataError(f"data: {error}") from error
    if split == "train" and len(samples) == 0:
        raise DataError("data: the training split has no samples")
    return samples


def seeded(*key: int | str) -> Generator:
    """A generator that is a function of the key alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True)
class Batch:
    """One step's input of one process."""

    views: list[Any]  # of all samples, each tensors [B, ...], nested as the modality's are
    masks: list[Masks]
    bad: list[tuple[str, str]]  # source and reason of the samples that had to be replaced

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device, without waiting where the memory is pinned."""
        return Batch(to_device(self.views, device), [masks.to(device) for masks in self.masks], self.bad)

    def split(self, count: int) -> list["Batch"]:
        """The batch as `count` equal ones, in order; the first of them tells of the samples that were replaced."""
        size = len(self.masks[0].context) // count
        parts = [slice(part * size, (part + 1) * size) for part in range(count)]
        return [
            Batch(
                tree_map(lambda leaf, rows=rows: leaf[rows], self.views),
                [masks[rows] for masks in self.masks],
                self.bad if rows.start == 0 else [],
            )
            for rows in parts
        ]

    @property
    def device(self) -> torch.device:
        """Where the batch lies."""
        return self.masks[0].context.device

    def sizes(self) -> dict[str, int]:
        """Context and target tokens a sample, over all sets of masks."""
        return {
            "context_tokens": sum(masks.context.shape[1] for masks in self.masks),
            "target_tokens": sum(masks.target.shape[1] * masks.target.shape[2] for masks in self.masks),
        }

    def pin_memory(self) -> "Batch":
        """Page-locked copy, called by the loader's pinning thread."""
        views: list[Any] = tree_map(lambda leaf: leaf.pin_memory() if isinstance(leaf, Tensor) else leaf, self.views)
        return Batch(views, [masks.pin_memory() for masks in self.masks], self.bad)


def to_device(tree: Any, device: torch.device) -> Any:
    """Copy every tensor of a nested structure to a device."""
    return tree_map(lambda leaf: leaf.to(device, non_blocking=True) if isinstance(leaf, Tensor) else leaf, tree)


@dataclass(frozen=True, kw_only=True)
class Order:
    """Which samples a step of a process sees: epoch after epoch, each a permutation of its own.

    A step is computed in `accumulate` micro-batches, and each of them is shared among the processes, so that what is in
    a micro-batch does not depend on the number of processes.
    """

    seed: int
    batch_size: int  # over all processes
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1

    @property
    def rows(self) -> list[int]:
        """Rows of the global batch that are this process's, one micro-batch after the other."""
        together = self.batch_size // self.accumulate
        local = together // self.world_size
        starts = [part * together + self.rank * local for part in range(self.accumulate)]
        return [row for start in starts for row in range(start, start + local)]

    def numbers(self, step: int) -> list[int]:
        """Running numbers, counted from the start of the run, of this process's samples at a step."""
        return [step * self.batch_size + row for row in self.rows]


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, count: int) -> Tensor:
    """Order of one epoch: int64 [count]."""
    return torch.randperm(count, generator=seeded("order", seed, epoch))


class Remembered:
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


class TrainingBatches(Dataset[Batch | DataError]):
    """Batch of a step by its number.

    Masks are drawn for the global batch, of which each process takes its rows: two processes see what one would.
    """

    def __init__(self, modality: Modality[Any], samples: Samples, order: Order, max_bad_fraction: float) -> None:
        self.modality, self.samples, self.order = modality, samples, order
        # More bad samples in a row than the whole data set may hold is an error for certain.
        self.attempts = int(max_bad_fraction * len(samples)) + 1

    def __getitem__(self, step: int) -> Batch | DataError:
        bad: list[tuple[str, str]] = []
        drawn = []
        for number in self.order.numbers(step):
            of_one = self._views(number, bad)
            if isinstance(of_one, DataError):
                return of_one
            drawn.append(of_one)
        masks = self.modality.sample_masks(self.order.batch_size, seeded("masks", self.order.seed, step))
        views = [default_collate(list(of_all)) for of_all in zip(*drawn, strict=True)]
        return Batch(views, [mask[self.order.rows] for mask in masks], bad)

    def _views(self, number: int, bad: list[tuple[str, str]]) -> list[Any] | DataError:
        """Views of the sample with this running number, or of the next in the data set that can be read."""
        count = len(self.samples)
        epoch, place = divmod(number, count)
        first = int(permutation(self.order.seed, epoch, count)[place])
        for attempt in range(self.attempts + 1):
            generator = seeded("view", self.order.seed, number)
            try:
                inputs = self.samples[(first + attempt) % count].inputs
                return [self.modality.training_view(inputs, generator) for _ in range(self.modality.views)]
            except BadSampleError as error:
                bad.append((error.source, error.reason))
        source, reason = bad[-1]
        return DataError(
            f"{self.attempts + 1} samples in a row cannot be read, more than data.max_bad_fraction allows; "
            f"the last one is {source}: {reason}"
        )


def training_batches(batches: TrainingBatches, steps: range, workers: int, world: World) -> Iterator[Batch]:
    """Batches of the given steps on this process's device, prepared ahead by worker processes."""
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=world.device.type == "cuda",
        worker_init_fn=_start_worker,
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch.to(world.device)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # The main process decides when to stop: keyboard, torchrun and SLURM send their signals to all processes.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


class BadFiles:
    """Samples that cannot be read, listed once each in a file of the run directory."""

    def __init__(self, path: Path, samples: int, max_fraction: float) -> None:
        self.path, self.samples, self.max_fraction = path, samples, max_fraction
        self.met: set[str] = set()  # by this process: what an earlier one listed may have been repaired since

    def add(self, bad: Sequence[tuple[str, str]]) -> None:
        """Note sources with their reasons; raises DataError when there are more than `max_fraction` of all samples."""
        new = {source: reason for source, reason in bad if source not in self.met}
        if not new:
            return
        self.met.update(new)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        listed = {line.split("\t")[0] for line in lines}
        with self.path.open("a") as file:
            for source in [source for source in new if source not in listed]:
                file.write(f"{source}\t{' '.join(new[source].split())}\n")
        if len(self.met) > self.max_fraction * self.samples:
            raise DataError(
                f"{len(self.met)} of {self.samples} samples cannot be read, more than data.max_bad_fraction="
                f"{self.max_fraction} allows; they are listed in {self.path}"
            )
