"""Initial weights of a network's linear layers."""

import math
from typing import Literal

import torch
from torch import nn

Initialisation = Literal["xavier", "rescaled", "ijepa"]


@torch.no_grad()
def initialise(module: nn.Module, how: Initialisation) -> None:
    """Initialise the linear layers of a network whose blocks are in `module.blocks`.

    xavier    Xavier uniform, zero biases (as the masked autoencoder of He et al. 2022): patch and position embeddings
              start at the same scale; otherwise small models learn positions only.
    rescaled  truncated normal of std .02, with the last layer of every residual branch of block i divided by sqrt(2 i),
              as I-JEPA and V-JEPA intend.
    ijepa     truncated normal of std .02 everywhere, as in the released I-JEPA code, where a later re-initialisation
              undoes the rescaling.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            if how == "xavier":
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if how == "rescaled":
        for depth, block in enumerate(module.get_submodule("blocks").children(), start=1):
            for name in ("attention.proj", "mlp.2"):
                weight = block.get_submodule(name).get_parameter("weight")
                weight.div_(math.sqrt(2.0 * depth))
