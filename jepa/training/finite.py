"""Stop a run whose gradient is not finite, without waiting for the device."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from jepa.distributed import World
from jepa.errors import UserError


class NonFiniteLossError(UserError, RuntimeError):
    """The loss or its gradient is infinite or not a number."""


class _Step(NamedTuple):
    number: int
    values: Tensor  # loss and norm of the gradient, on their way to the host
    arrived: torch.cuda.Event | None


class FiniteCheck:
    """Raises NonFiniteLossError for a step once the next one has started, when its numbers are on the host.

    The optimiser itself skips a step whose gradient is not finite, so the weights are those of the step before. Every
    rank sees the same norm of the gradient, so all raise at the same step.

    last_checkpoint: what the error says about it.
    """

    def __init__(self, last_checkpoint: Callable[[], str], world: World) -> None:
        self.last_checkpoint, self.world = last_checkpoint, world
        self.latest: _Step | None = None

    def add(self, step: int, loss: Tensor, gradient_norm: Tensor) -> None:
        """Send a step's numbers to the host, and check the step before."""
        on_gpu = loss.device.type == "cuda"
        values = torch.stack([loss, gradient_norm]).to("cpu", non_blocking=on_gpu)
        arrived = torch.cuda.Event() if on_gpu else None
        if arrived is not None:
            arrived.record()
        before, self.latest = self.latest, _Step(step, values, arrived)
        if before is not None:
            self._check(before)

    def check(self) -> None:
        """Check the latest step, before it is logged or saved."""
        if self.latest is not None:
            self._check(self.latest)

    def _check(self, step: _Step) -> None:
        if step.arrived is not None:
            step.arrived.synchronize()
        loss, norm = step.values.tolist()
        if math.isfinite(norm):  # of all ranks: a loss that is not finite makes every gradient NaN
            return
        with self.world.error_barrier():
            if not math.isfinite(loss):
                raise self._error("loss", step, f" on rank {self.world.rank}")
        raise self._error("gradient", step)

    def _error(self, what: str, step: _Step, where: str = "") -> NonFiniteLossError:
        return NonFiniteLossError(
            f"the {what} is not finite at step {step.number}{where}; "
            f"{self.last_checkpoint()}. Try a smaller "
            "optim.peak_lr, optim.max_gradient_norm=1, a longer optim.warmup, or compute.precision=fp32; "
            "at the first step, or at any rate, samples may hold NaN or infinity (data sets raise BadSampleError)"
        )
