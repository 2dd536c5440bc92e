"""Signs of collapse of a model on a batch."""

from typing import Any

import torch
from torch.utils._pytree import tree_map

from jepa.collapse import CollapseSigns, collapse_signs
from jepa.data import Batch
from jepa.distributed import World, is_sharded
from jepa.encoder import TokenEncoder
from jepa.masking import Masks
from jepa.model import JEPA
from jepa.probe.protocol import Which
from jepa.training.config import Config
from jepa.training.numerics import measuring


def logged_signs(model: JEPA, config: Config[Any, Any], batch: Batch, world: World) -> dict[str, CollapseSigns]:
    """Signs of collapse for the log of rank 0; the other ranks only help to gather shards, and may get none."""
    which = config.evaluated_encoder
    if is_sharded(model):
        return collapse_signs_of(model, which, batch, config.compute.uses_bf16(world.device.type))
    return collapse_signs_of(model, which, batch, bf16=False) if world.is_main else {}


def collapse_signs_of(model: JEPA, which: Which, batch: Batch, bf16: bool) -> dict[str, CollapseSigns]:
    """Signs of collapse of an encoder on the first samples of a batch, by stream; "" if there is one stream.

    bf16: for shards gathered in bf16; otherwise in fp32 (TF32 on GPUs), as bf16 would hide a collapse. Measured
    on all tokens of 32 samples. With several streams, or samples that lack tokens, on the pooled vectors of 128
    samples, as their number limits `rankme`.
    """
    encoder: TokenEncoder = getattr(model, which)
    inputs = model.to_network(tree_map(lambda leaf: leaf[:128], batch.views[0]))
    if not model.streams and encoder.valid(inputs) is None:
        inputs = tree_map(lambda leaf: leaf[:32], inputs)
    with measuring(encoder, batch.device), torch.autocast(batch.device.type, torch.bfloat16, enabled=bf16):
        tokens, valid = encoder(inputs), encoder.valid(inputs)
        if not model.streams and valid is None:
            return {"": collapse_signs(tokens)}
        pooled = encoder.pool(tokens, None if valid is None else Masks.of_everything(valid))
    return {name if model.streams else "": collapse_signs(one.unsqueeze(1)) for name, one in pooled.items()}
