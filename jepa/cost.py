"""What a run takes, measured on networks without memory: parameters, tokens, FLOPs a step."""

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from jepa.data import open_split, seeded
from jepa.loss import prediction_loss
from jepa.modality import Modality
from jepa.model import JEPA
from jepa.train import Config

_SAMPLES = 2  # FLOPs are linear in the batch, so a small one is counted


def describe(config: Config[Any], modality: Modality[Any]) -> str:
    """A few lines for people: parameters by network, tokens, FLOPs."""
    with torch.device("meta"):
        model = JEPA(config.model, modality, config.target)
    masks = modality.sample_masks(_SAMPLES, seeded("cost"))
    flops = step_flops(model, modality, config) / _SAMPLES
    context = sum(mask.context.shape[1] for mask in masks)
    target = sum(mask.target.shape[1] * mask.target.shape[2] for mask in masks)
    batch = config.optim.batch_size
    return "\n".join(
        [
            f"parameters   encoder {_millions(model.context_encoder)}, predictor {_millions(model.predictor)}",
            f"tokens       {len(modality.positions)} a sample on a grid of {' x '.join(map(str, modality.grid))}; "
            f"about {context} context, {target} target",
            f"FLOPs        {flops / 1e9:.3g} G a sample, {flops * batch / 1e12:.3g} T a step of {batch} samples",
            f"run          {config.steps} steps, {config.steps * batch:,} samples, "
            f"{flops * batch * config.steps:.3g} FLOPs",
        ]
    )


def step_flops(model: JEPA, modality: Modality[Any], config: Config[Any]) -> float:
    """Floating-point operations of forward and backward pass of `_SAMPLES` samples, a multiply-add counted as two."""
    view = modality.evaluation_view(open_split(modality, "train")[0].inputs)
    inputs = tree_map(lambda leaf: torch.empty(_SAMPLES, *leaf.shape, dtype=leaf.dtype, device="meta"), view)
    masks = [mask.to(torch.device("meta")) for mask in modality.sample_masks(_SAMPLES, seeded("cost"))]
    with FlopCounterMode(display=False) as counter:
        prediction_loss(model(inputs, masks), config.loss).backward()
    return float(counter.get_total_flops())


def _millions(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f} M"
