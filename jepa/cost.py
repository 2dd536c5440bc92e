"""What a run takes, measured on networks without memory: parameters, tokens, FLOPs a step."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from jepa.data import open_split, seeded
from jepa.loss import prediction_loss
from jepa.masking import Masks
from jepa.modality import Modality
from jepa.model import JEPA, TargetKind
from jepa.train import Config

_DRAWS = 16  # of masks, over which FLOPs and tokens are averaged


def describe(config: Config[Any], modality: Modality[Any]) -> str:
    """A few lines for people: parameters by network, tokens, FLOPs."""
    with torch.device("meta"):
        model = JEPA(config.model, modality, config.target_kinds)
    drawn = _masks(config, modality)
    flops = run_flops(config, modality) / (config.steps * config.optim.batch_size)
    context = round(fmean(mask.context.shape[1] for masks in drawn for mask in masks))
    target = round(fmean(mask.target.shape[1:].numel() for masks in drawn for mask in masks))
    sets = len(drawn[0])
    batch = config.optim.batch_size
    return "\n".join(
        [
            f"parameters   encoder {_millions(model.context_encoder)}, predictor {_millions(model.predictor)}",
            f"tokens       {len(modality.positions)} a sample on a grid of {' x '.join(map(str, modality.grid))}; "
            f"about {context} context, {target} target" + (f" in each of {sets} sets" if sets > 1 else ""),
            f"FLOPs        {flops / 1e9:.3g} G a sample, {flops * batch / 1e12:.3g} T a step of {batch} samples",
            f"run          {config.steps} steps, {config.steps * batch:,} samples, "
            f"{flops * batch * config.steps:.3g} FLOPs",
        ]
    )


def run_flops(config: Config[Any], modality: Modality[Any]) -> float:
    """Floating-point operations of a whole run, a multiply-add counted as two."""
    steps = sum(stage.steps * sample_flops(config, modality, stage.weights) for stage in config.stages)
    return steps * config.optim.batch_size


def sample_flops(config: Config[Any], modality: Modality[Any], weights: Mapping[TargetKind, float]) -> float:
    """Floating-point operations of one sample that predicts these kinds of target, forward and backward.

    The mean over masks of whole batches, as those of a strategy may depend on the size of the batch.
    """
    view = modality.evaluation_view(open_split(modality, "train")[0].inputs)
    with torch.device("meta"):
        model = JEPA(config.model, modality, config.target_kinds)
        inputs = tree_map(lambda leaf: torch.empty(1, *leaf.shape, dtype=leaf.dtype), view)
    with FlopCounterMode(display=False) as counter:
        for masks in _masks(config, modality):
            of_one = [mask[slice(1)].to("meta") for mask in masks]
            predictions = model([inputs] * modality.views, of_one, tuple(weights))
            prediction_loss(predictions, config.loss, weights).backward()
    return float(counter.get_total_flops()) / _DRAWS


def _masks(config: Config[Any], modality: Modality[Any]) -> list[list[Masks]]:
    """Masks of the first steps."""
    return [
        modality.sample_masks(config.optim.batch_size, seeded("masks", config.seed, step)) for step in range(_DRAWS)
    ]


def _millions(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f} M"
