"""Names of weights in the code of I-JEPA, V-JEPA and V-JEPA 2, which share them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from jepa.weights.formats.names import Entry, Table, layer

NETWORKS = {"context_encoder": "encoder", "predictor": "predictor", "target_encoder": "target_encoder"}


def _blocks(theirs: str) -> tuple[Entry, ...]:
    """A transformer's blocks; theirs: what they are called."""
    names = {"norm1": "norm1", "attention.qkv": "attn.qkv", "attention.proj": "attn.proj", "norm2": "norm2"}
    names |= {"mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
    return tuple(layer(f"blocks.*.{one}", f"{theirs}.*.{other}") for one, other in names.items())


ENCODER = Table(
    Entry("embedding.project", ("patch_embed.proj",), shape="patches"), *_blocks("blocks"), layer("norm", "norm")
)
_PREDICTOR = (
    layer("embed", "predictor_embed"),
    *_blocks("predictor_blocks"),
    layer("norm", "predictor_norm"),
    layer("project", "predictor_proj"),
)
PREDICTOR = Table(*_PREDICTOR, Entry("mask_tokens.*", ("mask_tokens.*",), ("",), "token"))
IMAGE_PREDICTOR = Table(*_PREDICTOR, Entry("mask_tokens.0", ("mask_token",), ("",), "token"))


def without_wrappers(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict without the prefixes of DDP and of their wrapper for several masks."""
    return {name.removeprefix("module.").removeprefix("backbone."): value for name, value in state.items()}
