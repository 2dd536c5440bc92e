"""Signs of collapse of a model on a batch."""

import torch
from torch.utils._pytree import tree_map

from jepa.collapse import CollapseSigns, collapse_signs
from jepa.data import Batch
from jepa.masking import Masks
from jepa.model import JEPA


@torch.no_grad()
def collapse_signs_of(model: JEPA, batch: Batch, bf16: bool) -> dict[str, CollapseSigns]:
    """Signs of collapse of the target encoder on up to 128 samples of a batch, by stream; "" if there is one stream.

    bf16: for shards that are gathered in bf16; otherwise computed in fp32, as rounding would hide a collapse. With
    several streams, or samples that lack tokens, the pooled vectors are measured instead of the tokens.
    """
    encoder, inputs = model.target_encoder, model.to_network(tree_map(lambda leaf: leaf[:128], batch.views[0]))
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=bf16):
        tokens, valid = encoder(inputs), encoder.valid(inputs)
        if not model.streams and valid is None:
            return {"": collapse_signs(tokens)}
        pooled = encoder.pool(tokens, None if valid is None else Masks.of_everything(valid))
    return {name if model.streams else "": collapse_signs(one.unsqueeze(1)) for name, one in pooled.items()}
