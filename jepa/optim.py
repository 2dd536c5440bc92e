"""Parameter groups, their optimiser, and what a step of the schedule sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from jepa.config import ConfigError
from jepa.schedules import Decay, Fraction, cosine, warmed_up


@dataclass(frozen=True, kw_only=True)
class RateFactor:
    """A factor on the learning rate of all parameters whose names begin so, `context_encoder.blocks.0` say."""

    prefix: str
    factor: PositiveFloat


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with a warm-up, then a cosine or another decay.

    batch_size: samples a step over all processes. accumulate: micro-batches that a step is computed in, to save memory:
    the gradient is that of the whole batch, but a regulariser sees one micro-batch (of all processes) at a time.
    warmup: fraction of the steps. Learning rate: start_lr -> peak_lr, then by `decay` to final_lr (`constant` stays);
    weight decay: weight_decay -> final_weight_decay by a cosine, on matrices only. schedule_length: of the schedules of
    learning rate, weight decay and momentum, in lengths of the run; beyond 1 the run ends before they do, as V-JEPA's
    at 1.25. max_gradient_norm: null clips nothing. rate_factors: parts of the networks that learn slower or faster than
    the rest; of several that name a parameter the last one counts.
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
    rate_factors: tuple[RateFactor, ...] = ()
    fused: bool = True
    accumulate: PositiveInt = 1


def adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over what requires a gradient; biases, norms and other vectors are not decayed.

    Raises ConfigError for a rate factor that is on no parameter.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {(True, 1.0): [], (False, 1.0): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = parameter.ndim > 1, _factor(name, config.rate_factors)
            groups.setdefault(key, []).append(parameter)
    _check_used(config.rate_factors, [name for name, _ in model.named_parameters()])
    return torch.optim.AdamW(
        [
            {"params": parameters, "decayed": decayed, "factor": factor, **({} if decayed else {"weight_decay": 0.0})}
            for (decayed, factor), parameters in groups.items()
        ],
        lr=config.peak_lr,
        betas=config.betas,
        fused=config.fused,
    )


def _factor(name: str, factors: Sequence[RateFactor]) -> float:
    return next((one.factor for one in reversed(factors) if name.startswith(one.prefix)), 1.0)


def _check_used(factors: Sequence[RateFactor], names: Sequence[str]) -> None:
    for one in factors:
        if not any(name.startswith(one.prefix) for name in names):
            parts = sorted({".".join(name.split(".")[:2]) for name in names})
            raise ConfigError(
                f"optim.rate_factors: no parameter's name begins with '{one.prefix}'; there are {', '.join(parts)}"
            )


def set_schedule(optimizer: torch.optim.Optimizer, step: int, steps: int, config: OptimConfig) -> float:
    """Set this step's learning rate, which is returned without factors, and weight decay."""
    rate = warmed_up(
        step,
        steps * config.schedule_length,
        config.warmup * steps,
        (config.start_lr, config.peak_lr, config.final_lr),
        config.decay,
    )
    decay = cosine(step, steps * config.schedule_length, config.weight_decay, config.final_weight_decay)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
        if group["decayed"]:
            group["weight_decay"] = decay
    return rate
