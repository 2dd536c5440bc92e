"""V-JEPA 2 in transformers: VJEPA2Model, as config.json and safetensors. Its one encoder becomes both of ours."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from jepa.weights.formats.names import Entry, Table, layer
from jepa.weights.formats.settings import checkpoint_of, heads_of
from jepa.weights.formats.stored import Reading, Stored
from jepa.weights.formats.vjepa2_official import ENCODER_HEADS, FRAMES, PREDICTOR_HEADS, SIZE, video_config

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


def recognises(stored: Stored) -> bool:
    """Whether it has the names of VJEPA2Model."""
    content = stored.content
    return isinstance(content, dict) and "encoder.embeddings.patch_embeddings.proj.weight" in content


def read(stored: Stored) -> Reading:
    """The encoder, twice, and the predictor."""
    model, config, patch = from_state(stored.content), stored.config, (2, 16, 16)
    patch = tuple(stored.content["encoder.embeddings.patch_embeddings.proj.weight"].shape[2:])
    width = len(model["context_encoder.embedding.project.weight"])
    settings = video_config(
        model,
        config.get("num_attention_heads") or heads_of(width, ENCODER_HEADS),
        config.get("pred_num_attention_heads", PREDICTOR_HEADS),
        config.get("frames_per_clip", FRAMES),
        config.get("crop_size", SIZE),
        patch,
    )
    notes = ("its one encoder, the context encoder of the published weights, is taken as both of ours",)
    return Reading(checkpoint_of(stored.path, "video", settings, model), notes)


def from_state(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of VJEPA2Model -> ours; raises ValueError."""
    state = dict(state)
    if isinstance(tokens := state.pop(_TOKENS, None), Tensor):  # [n, 1, 1, D]
        state |= {f"{_TOKENS}.{number}": token for number, token in enumerate(tokens)}
    unknown = set(ENCODER.unknown(state)) & set(PREDICTOR.unknown(state))
    if unknown:
        raise ValueError(f"it has {min(unknown)}, which VJEPA2Model does not have")
    encoder = ENCODER.to_ours(state)
    return {
        **{f"context_encoder.{name}": value for name, value in encoder.items()},
        **{f"predictor.{name}": value for name, value in PREDICTOR.to_ours(state).items()},
        **{f"target_encoder.{name}": value for name, value in encoder.items()},
    }
