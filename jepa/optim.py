"""Parameter groups, their optimiser, and what a step of the schedule sets."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from jepa.schedules import Decay, Fraction, cosine, warmed_up


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with a warm-up, then a cosine or another decay.

    batch_size: samples a step over all processes. accumulate: micro-batches that a step is computed in, to save memory:
    the gradient is that of the whole batch, but a regulariser sees one micro-batch (of all processes) at a time.
    warmup: fraction of the steps. Learning rate: start_lr -> peak_lr, then by `decay` to final_lr (`constant` stays);
    weight decay: weight_decay -> final_weight_decay by a cosine, on matrices only. schedule_length: of the schedules of
    learning rate, weight decay and momentum, in lengths of the run; beyond 1 the run ends before they do, as V-JEPA's
    at 1.25. max_gradient_norm: null clips nothing.
    """

    batch_size: PositiveInt = 256
    peak_lr: PositiveFloat = 1e-3
    start_lr: NonNegativeFloat = 0.0
    final_lr: NonNegativeFloat = 1e-6
    warmup: Fraction = 0.1
    decay: Decay = "cosine"
    schedule_length: Annotated[float, Field(ge=1)] = 1.0
    weight_decay: NonNegativeFloat = 0.04
    final_weight_decay: NonNegativeFloat = 0.4
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    max_gradient_norm: PositiveFloat | None = None
    fused: bool = True
    accumulate: PositiveInt = 1


def adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over what requires a gradient; biases, norms and other vectors are not decayed."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "decayed": True},
        {
            "params": [parameter for parameter in parameters if parameter.ndim <= 1],
            "decayed": False,
            "weight_decay": 0.0,
        },
    ]
    return torch.optim.AdamW(groups, lr=config.peak_lr, betas=config.betas, fused=config.fused)


def set_schedule(optimizer: torch.optim.Optimizer, step: int, steps: int, config: OptimConfig) -> float:
    """Set this step's learning rate, which is returned, and weight decay."""
    rate = warmed_up(
        step,
        steps * config.schedule_length,
        config.warmup * steps,
        (config.start_lr, config.peak_lr, config.final_lr),
        config.decay,
    )
    decay = cosine(step, steps * config.schedule_length, config.weight_decay, config.final_weight_decay)
    for group in optimizer.param_groups:
        group["lr"] = rate
        if group["decayed"]:
            group["weight_decay"] = decay
    return rate
