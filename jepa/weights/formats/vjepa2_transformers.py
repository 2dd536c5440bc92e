"""V-JEPA 2 in transformers: VJEPA2Model, as config.json and safetensors. Its one encoder becomes both of ours."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from jepa.weights.formats.names import Entry, Table, layer
from jepa.weights.formats.settings import VJEPA2_HEADS, checkpoint_of, encoder_width, heads_of, video_config
from jepa.weights.formats.stored import Reading, Stored
from jepa.weights.formats.vjepa2_official import FRAMES, PREDICTOR_HEADS, SIZE

NAME = "V-JEPA 2 of transformers"


def _blocks(prefix: str) -> tuple[Entry, ...]:
    parts = [f"{prefix}layer.*.attention.{part}" for part in ("query", "key", "value")]
    names = {"norm1": "norm1", "attention.proj": "attention.proj", "norm2": "norm2"}
    names |= {"mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
    others = (layer(f"blocks.*.{one}", f"{prefix}layer.*.{other}") for one, other in names.items())
    return (layer("blocks.*.attention.qkv", *parts), *others)


ENCODER = Table(
    Entry("embedding.project", ("encoder.embeddings.patch_embeddings.proj",), shape="patches"),
    *_blocks("encoder."),
    layer("norm", "encoder.layernorm"),
)
PREDICTOR = Table(
    layer("embed", "predictor.embeddings.predictor_embeddings"),
    *_blocks("predictor."),
    layer("norm", "predictor.layernorm"),
    layer("project", "predictor.proj"),
    Entry("mask_tokens.*", ("predictor.embeddings.mask_tokens.*",), ("",), "token"),
)
_TOKENS = "predictor.embeddings.mask_tokens"
_PATCHES = "encoder.embeddings.patch_embeddings.proj.weight"


def recognises(stored: Stored) -> bool:
    """Whether it has the names of VJEPA2Model."""
    content = stored.content
    return isinstance(content, dict) and _PATCHES in content


def read(stored: Stored) -> Reading:
    """The encoder, twice, and the predictor."""
    model, config = from_state(stored.content), stored.config
    patch = tuple(stored.content[_PATCHES].shape[1:])
    heads = (
        config.get("num_attention_heads") or heads_of(encoder_width(model), VJEPA2_HEADS),
        config.get("pred_num_attention_heads", PREDICTOR_HEADS),
    )
    side = config.get("crop_size", SIZE) // patch[2]
    grid = (config.get("frames_per_clip", FRAMES) // patch[1], side, side)
    notes = ("its one encoder, the context encoder of the published weights, is taken as both of ours",)
    settings = video_config(model, heads, grid, patch, "rotary_vjepa2", share_mask_token=True)
    return Reading(checkpoint_of(stored.path, "video", settings, model), notes)


def from_state(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of VJEPA2Model -> ours; raises ValueError."""
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "predictor": {}}
    for name, value in state.items():
        if name == _TOKENS and isinstance(value, Tensor):  # [n, 1, 1, D]
            parts["predictor"] |= {f"{_TOKENS}.{number}": token for number, token in enumerate(value)}
        else:
            parts.setdefault(name.partition(".")[0], {})[name] = value
    if strange := sorted(set(parts) - {"encoder", "predictor"}):
        raise ValueError(f"it has {min(parts[strange[0]])}, which VJEPA2Model does not have")
    encoder = ENCODER.to_ours(parts["encoder"])
    return {
        **{f"context_encoder.{name}": value for name, value in encoder.items()},
        **{f"predictor.{name}": value for name, value in PREDICTOR.to_ours(parts["predictor"]).items()},
        **{f"target_encoder.{name}": value for name, value in encoder.items()},
    }
