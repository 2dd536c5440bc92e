"""Training batches as pure functions of (seed, step, rank)."""

import ctypes
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, Dataset

from jepa.data.bad_files import DataError, described
from jepa.data.collate import collated
from jepa.data.masks import step_masks
from jepa.data.order import Order, permutation, seeded
from jepa.data.prefetch import batch_bytes, batches_ahead
from jepa.distributed import STOP_SIGNALS, World
from jepa.errors import UserError
from jepa.masking import Masks
from jepa.modality import BadSampleError, Modality, Samples, Split

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


class _OpenSplits(dict[Split, Samples]):
    """Samples of the splits that a modality has opened. A pickled copy is empty, as loaders receive their samples."""

    def __reduce__(self) -> tuple[type["_OpenSplits"], tuple[()]]:
        return _OpenSplits, ()


def open_split(modality: Modality[Any], split: Split) -> Samples:
    """Samples of a split; raises DataError if files are missing, or no sample is found for training.

    The modality keeps them: a run asks for each split several times, and opening one may list millions of files.
    """
    known: _OpenSplits = vars(modality).setdefault("_open_splits", _OpenSplits())
    if split in known:
        return known[split]
    try:
        samples = modality.dataset(split)
    except (OSError, ValueError) as error:
        raise DataError(f"data: {error}") from error
    if split == "train" and len(samples) == 0:
        raise DataError("data: the training split has no samples")
    known[split] = samples
    return samples


@dataclass(frozen=True)
class Batch:
    """Input of one process for one step."""

    views: list[Any]  # loader views, each a tensor [B, ...] or a nested structure of them
    masks: list[Masks]
    bad: list[tuple[str, str]]  # source and reason of unreadable samples, which were replaced
    local: list[Any] = field(default_factory=list)  # smaller views, see `Modality.local_views`

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device, asynchronously from pinned memory."""
        masks = [masks.to(device) for masks in self.masks]
        return Batch(to_device(self.views, device), masks, self.bad, to_device(self.local, device))

    def split(self, count: int) -> list["Batch"]:
        """Split into `count` equal micro-batches, in order; the first one carries `bad`.

        There are more of them if masks differ in their numbers of tokens: each micro-batch has one number.
        """
        count = math.lcm(count, *(len(masks.counts) or 1 for masks in self.masks))
        size = len(self.masks[0]) // count

        def rows(views: list[Any], part: int) -> list[Any]:
            chosen: list[Any] = tree_map(lambda leaf: leaf[part * size : (part + 1) * size], views)
            return chosen

        return [
            Batch(rows(self.views, part), list(masks), [] if part else self.bad, rows(self.local, part))
            for part, masks in enumerate(zip(*(one.split(count) for one in self.masks), strict=True))
        ]

    @property
    def device(self) -> torch.device:
        return self.masks[0].context.device

    def sizes(self) -> dict[str, int]:
        """Context and target tokens per sample, summed over sets of masks."""
        context, target = zip(*(masks.mean_counts() for masks in self.masks), strict=True)
        return {"context_tokens": round(sum(context)), "target_tokens": round(sum(target))}

    def pin_memory(self) -> "Batch":
        """Pinned copy, made by the loader's pinning thread."""
        pair: tuple[list[Any], list[Any]] = (self.views, self.local)
        views, local = tree_map(lambda leaf: leaf.pin_memory() if isinstance(leaf, Tensor) else leaf, pair)
        return Batch(views, [masks.pin_memory() for masks in self.masks], self.bad, local)


def to_device(tree: Any, device: torch.device) -> Any:
    """Copy every tensor of a nested structure to a device."""
    pinned = device.type == "cuda"
    return tree_map(lambda leaf: leaf.to(device, non_blocking=pinned) if isinstance(leaf, Tensor) else leaf, tree)


class TrainingBatches(Dataset[Batch | UserError]):
    """The batch of each step, by step number.

    The number of processes changes neither samples nor masks.
    """

    def __init__(self, modality: Modality[Any], samples: Samples, order: Order, max_bad_fraction: float) -> None:
        self.modality, self.samples, self.order = modality, samples, order
        # More unreadable samples in a row than the whole data set may hold is certainly an error.
        self.attempts = int(max_bad_fraction * len(samples)) + 1

    def __getitem__(self, step: int) -> Batch | UserError:
        """The batch of a step, or an error that a user can cause: raised in a worker, it would lose its sentence."""
        try:
            return self._batch(step)
        except UserError as error:
            return error

    def ahead(self, workers: int, prefetch_mb: float) -> int:
        """How many batches each worker prepares ahead."""
        try:
            size = batch_bytes(self.modality, len(self.order.rows))
        except BadSampleError:  # none of many samples shows the size
            return 1
        return batches_ahead(size, workers, prefetch_mb)

    def _batch(self, step: int) -> Batch:
        bad: list[tuple[str, str]] = []
        samples = [self._views(number, bad) for number in self.order.numbers(step)]
        views = [collated(of_samples) for of_samples in zip(*samples, strict=True)]
        whole = self.modality.views
        return Batch(views[:whole], step_masks(self.modality, self.order, step), bad, views[whole:])

    def _views(self, number: int, bad: list[tuple[str, str]]) -> list[Any]:
        """Views of sample `number`, counted over the run, or of the next readable one; raises DataError.

        The smaller views come last.
        """
        modality, count = self.modality, len(self.samples)
        epoch, place = divmod(number, count)
        first = int(permutation(self.order.seed, epoch, count)[place])
        for attempt in range(self.attempts + 1):
            generator, index = seeded("view", self.order.seed, number), (first + attempt) % count
            try:
                inputs = self.samples[index].inputs
                views = [modality.loader_view(inputs, generator) for _ in range(modality.views)]
                return views + [modality.local_view(inputs, generator) for _ in range(modality.local_views)]
            except BadSampleError as error:
                bad.append(described(error, self.samples, index))
        source, reason = bad[-1]
        raise DataError(
            f"{self.attempts + 1} samples in a row cannot be read, more than data.max_bad_fraction allows; "
            f"the last one is {source}: {reason}"
        )


@contextmanager
def training_batches(
    batches: TrainingBatches, steps: range, workers: int, world: World, prefetch_mb: float = 2048
) -> Iterator[Iterator[Batch]]:
    """Batches of the given steps; workers prefetch up to `prefetch_mb`; they are pinned if this process has a GPU.

    The workers end when the context ends, for whatever reason. Raises DataError if one of them was killed.
    """
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=batches.ahead(workers, prefetch_mb) if workers else None,
        pin_memory=world.device.type == "cuda",
        worker_init_fn=_start_worker,
    )
    loaded: Any = iter(loader)
    try:
        with _deaths_explained(loaded, workers):
            yield _loaded(loaded, workers)
    finally:
        if workers:  # at exit Python would wait for them, as a traceback keeps the iterator alive
            for worker in loaded._workers:
                worker.terminate = worker.kill  # they ignore SIGTERM
            loaded._shutdown_workers()


@contextmanager
def _deaths_explained(loaded: Any, workers: int) -> Iterator[None]:
    """Raise DataError if the body fails because a worker has died."""
    try:
        yield
    except (EOFError, OSError, RuntimeError) as error:  # of a broken connection, or torch's own
        dead = _dead(loaded._workers) if workers and not isinstance(error, UserError) else []
        if not dead:
            raise
        raise DataError(
            f"a process that prepares batches died with exit status {dead[0].exitcode}. Often memory is short: try "
            f"fewer compute.workers (now {workers}), less compute.cache_mb for each of them, less compute.prefetch_mb, "
            "or a larger /dev/shm"
        ) from error


def _dead(workers: list[BaseProcess]) -> list[BaseProcess]:
    """The workers that failed. Waits for up to a second, as a connection breaks before its process has ended."""
    with suppress(RuntimeError):  # torch raises it wherever the main process is when it learns of the death
        ended = wait([worker.sentinel for worker in workers], timeout=1)
        for worker in workers:
            if worker.sentinel in ended:
                worker.join()
    return [worker for worker in workers if worker.exitcode]


def _loaded(loaded: Any, workers: int) -> Iterator[Batch]:
    while True:
        with _deaths_explained(loaded, workers):
            batch = next(loaded, None)
        if batch is None:
            return
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    if sys.platform == "linux":  # otherwise a worker outlives a killed process by seconds, and holds its connections
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    # Keyboard, torchrun and SLURM signal every process, but only the main one decides when to stop.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
