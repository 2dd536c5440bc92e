"""Parameter groups, their optimiser, and what a step of the schedule sets."""

from dataclasses import dataclass

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from jepa.schedules import Fraction, cosine, warmup_cosine


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with a warm-up and a cosine.

    batch_size: samples a step over all processes. accumulate: micro-batches that a step is computed in, to save memory:
    the gradient is that of the whole batch, but a regulariser sees one micro-batch (of all processes) at a time.
    warmup: fraction of the steps. Learning rate: start_lr -> peak_lr -> final_lr; weight decay: weight_decay ->
    final_weight_decay by a cosine, on matrices only. max_gradient_norm: null clips nothing.
    """

    batch_size: PositiveInt = 256
    peak_lr: PositiveFloat = 1e-3
    start_lr: NonNegativeFloat = 0.0
    final_lr: NonNegativeFloat = 1e-6
    warmup: Fraction = 0.1
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
    rate = warmup_cosine(
        step, steps, start=config.start_lr, peak=config.peak_lr, final=config.final_lr, warmup=config.warmup
    )
    decay = cosine(step, steps, config.weight_decay, config.final_weight_decay)
    for group in optimizer.param_groups:
        group["lr"] = rate
        if group["decayed"]:
            group["weight_decay"] = decay
    return rate
