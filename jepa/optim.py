"""The optimiser with its parameter groups, and the schedule that sets their rates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from jepa.config import ConfigError
from jepa.distributed import whole
from jepa.ops.muon import Muon, block_matrices
from jepa.schedules import Decay, Fraction, cosine, warmed_up


@dataclass(frozen=True, kw_only=True)
class RateFactor:
    """Factor on the learning rate of all parameters below a name such as `context_encoder.blocks.0`."""

    prefix: str
    factor: PositiveFloat


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW or Muon with a warm-up, then a cosine or another decay.

    optimizer: `muon` orthogonalises the updates of matrices in transformer blocks, at AdamW's rates and weight decay;
    all other weights (embeddings, heads, projectors, norms, biases, tokens) use AdamW, as do `betas`.
    batch_size: samples per step over all processes. accumulate: micro-batches per step, to save memory. The gradient is
    that of the whole batch, but a regulariser or contrast sees one micro-batch (of all processes) at a time, and where
    samples lack targets (padding), all micro-batches weigh the same. warmup: as a share of the steps. Learning rate:
    start_lr -> peak_lr over the warm-up, then by `decay` to final_lr (`constant` stays). Weight decay: a cosine from
    weight_decay to final_weight_decay, on matrices only. schedule_length: length of the schedules of learning rate and
    weight decay, relative to the run, and of teachers, relative to their stage; above 1 these end first (V-JEPA: 1.25).
    max_gradient_norm: null for no clipping. rate_factors: parts of the networks with another learning rate; the last
    match counts.
    """

    removed_settings: ClassVar[Sequence[str]] = ("fused",)

    optimizer: Literal["adamw", "muon"] = "adamw"
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


def build_optimizer(model: nn.Module, config: OptimConfig, bf16: bool = False, processes: int = 1) -> torch.optim.AdamW:
    """AdamW or Muon over all trainable parameters, without weight decay on biases, norms and other vectors.

    bf16: whether Muon orthogonalises in bf16; the same in all processes. processes: that divide Muon's work.
    Raises ConfigError for a rate factor that applies to no parameter, and for Muon without matrices.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    matches = {name: _last_match(name, config.rate_factors) for name in trained}
    _check_used(config.rate_factors, matches)
    orthogonal = set(muon_matrices(model, config))
    if config.optimizer == "muon" and not orthogonal:
        raise ConfigError("optim.optimizer: muon finds no matrices to train in the networks' fsdp_units; use adamw")
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {(False, True, 1.0): [], (False, False, 1.0): []}
    for name, parameter in trained.items():
        match = matches[name]
        factor = 1.0 if match is None else config.rate_factors[match].factor
        groups.setdefault((parameter in orthogonal, parameter.ndim > 1, factor), []).append(parameter)
    listed = [_group(parameters, *key) for key, parameters in groups.items()]
    common: dict[str, Any] = {"lr": config.peak_lr, "betas": config.betas, "fused": True}
    return Muon(listed, bf16=bf16, processes=processes, **common) if orthogonal else torch.optim.AdamW(listed, **common)


def _group(parameters: list[nn.Parameter], orthogonal: bool, decayed: bool, factor: float) -> dict[str, Any]:
    group = {"params": parameters, "orthogonal": orthogonal, "decayed": decayed, "factor": factor}
    return group if decayed else {**group, "weight_decay": 0.0}


def muon_matrices(model: nn.Module, config: OptimConfig) -> list[nn.Parameter]:
    """The parameters that Muon updates: matrices in the blocks that the networks name in `fsdp_units`."""
    if config.optimizer != "muon":
        return []
    blocks: Iterable[nn.Module] = model.fsdp_units()  # type: ignore[operator]
    return block_matrices(blocks)


def clip_gradient(optimizer: torch.optim.AdamW, max_norm: float | None) -> Tensor:
    """Clip the gradient of all parameters together -> its norm before, a scalar.

    If the norm is not finite, the optimiser's next step changes nothing. The device decides; the host need not wait.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if max_norm is not None:
        clip_grads_with_norm_(parameters, max_norm, norm)
    norm = whole(norm)
    # As torch's GradScaler tells fused optimisers.
    vars(optimizer)["found_inf"] = torch.isfinite(norm).logical_not().float()
    return norm


def _last_match(name: str, factors: Sequence[RateFactor]) -> int | None:
    """Index of the last factor whose prefix names the parameter or a module around it; None if there is none."""
    # Compares whole names, as blocks.1 does not contain blocks.11.
    found = [index for index, one in enumerate(factors) if f"{name}.".startswith(f"{one.prefix.rstrip('.')}.")]
    return found[-1] if found else None


def _check_used(factors: Sequence[RateFactor], matches: Mapping[str, int | None]) -> None:
    for index, one in enumerate(factors):
        if index in matches.values():
            continue
        if any(_last_match(name, [one]) is not None for name in matches):
            raise ConfigError(f"optim.rate_factors: later factors override '{one.prefix}' everywhere")
        parts = sorted({".".join(name.split(".")[:2]) for name in matches})
        raise ConfigError(
            f"optim.rate_factors: no trainable parameter lies below '{one.prefix}'; there are {', '.join(parts)}"
        )


def set_schedule(optimizer: torch.optim.Optimizer, step: int, steps: int, config: OptimConfig) -> float:
    """Set the learning rate and weight decay of a step -> learning rate, without factors.

    The warm-up counts a step before it looks up its rate, as the published code does: a step at rate 0 learns nothing.
    """
    warmup = config.warmup * steps
    rate = warmed_up(
        max(step, min(step + 1, warmup)),
        steps * config.schedule_length,
        warmup,
        (config.start_lr, config.peak_lr, config.final_lr),
        config.decay,
    )
    decay = cosine(step, steps * config.schedule_length, config.weight_decay, config.final_weight_decay)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
        if group["decayed"]:
            group["weight_decay"] = decay
    return rate
