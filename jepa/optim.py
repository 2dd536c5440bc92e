"""Parameter groups, their optimiser, and what a step of the schedule sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from jepa.config import ConfigError
from jepa.schedules import Decay, Fraction, cosine, warmed_up


@dataclass(frozen=True, kw_only=True)
class RateFactor:
    """A factor on the learning rate of all parameters of a part of the networks, `context_encoder.blocks.0` say."""

    prefix: str
    factor: PositiveFloat


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with a warm-up, then a cosine or another decay.

    batch_size: samples a step over all processes. accumulate: micro-batches that a step is computed in, to save memory:
    the gradient is that of the whole batch, but a regulariser or a contrast sees one micro-batch (of all processes) at
    a time, and where samples lack some of the targets, micro-batches weigh the same however many they have.
    warmup: fraction of the steps. Learning rate: start_lr -> peak_lr, then by `decay` to final_lr (`constant` stays);
    weight decay: weight_decay -> final_weight_decay by a cosine, on matrices only. schedule_length: of the schedules of
    learning rate, weight decay and momentum, in lengths of the run; beyond 1 the run ends before they do, as V-JEPA's
    at 1.25. max_gradient_norm: null clips nothing. rate_factors: parts of the networks that learn slower or faster than
    the rest; of several that name a parameter the last one counts.
    """

    removed_settings: ClassVar[Sequence[str]] = ("fused",)

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
    accumulate: PositiveInt = 1


def adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over what requires a gradient; biases, norms and other vectors are not decayed.

    Raises ConfigError for a rate factor that decides on no parameter.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {(True, 1.0): [], (False, 1.0): []}
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    deciding = {name: _deciding(name, config.rate_factors) for name in learned}
    _check_used(config.rate_factors, deciding)
    for name, parameter in learned.items():
        place = deciding[name]
        factor = 1.0 if place is None else config.rate_factors[place].factor
        groups.setdefault((parameter.ndim > 1, factor), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "decayed": decayed, "factor": factor, **({} if decayed else {"weight_decay": 0.0})}
            for (decayed, factor), parameters in groups.items()
        ],
        lr=config.peak_lr,
        betas=config.betas,
        fused=True,
    )


def _deciding(name: str, factors: Sequence[RateFactor]) -> int | None:
    """The place of the last factor whose prefix names a parameter or a module around it; None where none does."""
    # By whole names, as blocks.1 is no part of blocks.11.
    places = [place for place, one in enumerate(factors) if f"{name}.".startswith(f"{one.prefix.rstrip('.')}.")]
    return places[-1] if places else None


def _check_used(factors: Sequence[RateFactor], deciding: Mapping[str, int | None]) -> None:
    for place, one in enumerate(factors):
        if place in deciding.values():
            continue
        if any(_deciding(name, [one]) is not None for name in deciding):
            raise ConfigError(f"optim.rate_factors: later factors are on all that '{one.prefix}' names")
        parts = sorted({".".join(name.split(".")[:2]) for name in deciding})
        raise ConfigError(
            f"optim.rate_factors: no parameter's name begins with '{one.prefix}' and learns; there are "
            f"{', '.join(parts)}"
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
