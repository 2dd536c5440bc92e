"""The batch of the next step: fetched, agreed on by all processes and copied while the device computes."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from jepa.data.bad_files import BadFiles
from jepa.data.batches import Batch
from jepa.distributed import Exchange, StopRequest, World


class Upcoming:
    """Fetches one batch ahead of the step, so that the device never waits for it.

    A step starts only if every process has its batch. So a stalled file system delays this exchange, which may wait
    for hours, and not a collective of NCCL, which would end the run.

    check: raises an error of work in the background, such as the last save.
    """

    def __init__(
        self,
        batches: Iterator[Batch],
        bad_files: BadFiles,
        check: Callable[[], None],
        stop_request: StopRequest,
        world: World,
    ) -> None:
        self.batches, self.bad_files, self.check = batches, bad_files, check
        self.stop_request, self.world = stop_request, world
        self.exchange = Exchange(world)
        self.copies = torch.cuda.Stream(world.device) if world.device.type == "cuda" else None
        self.batch: Batch | None = None
        self.error: Exception | None = None
        self.failed = False

    def fetch(self) -> None:
        """Read the batch of the next step, and send whether anything failed and whether to stop."""
        try:
            self.batch = next(self.batches, None)
            if self.batch is not None:
                self.bad_files.add(self.batch.bad)
            self.check()
        except Exception as error:  # `take` raises it
            self.error = error
        self.exchange.start(self.error is not None, bool(self.stop_request))

    def agree(self) -> bool:
        """Wait for the other processes, and start the copy to the device -> whether any was asked to stop."""
        self.failed, stopping = self.exchange.finish()
        if self.batch is not None:
            with nullcontext() if self.copies is None else torch.cuda.stream(self.copies):
                self.batch = self.batch.to(self.world.device)
        return stopping

    def take(self) -> Batch:
        """The batch on the device; raises the error of `fetch`, or PeerError if another process has one."""
        if self.failed:
            self.world.raise_together(self.error)
        batch, self.batch = self.batch, None
        assert batch is not None
        if self.copies is not None:
            computing = torch.cuda.current_stream(self.world.device)
            computing.wait_stream(self.copies)
            for tensor in _tensors(batch):  # its memory must not be reused before the step has read it
                tensor.record_stream(computing)
        return batch


def _tensors(batch: Batch) -> list[Tensor]:
    leaves: list[Any] = tree_leaves((batch.views, batch.local, [(one.context, one.target) for one in batch.masks]))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
