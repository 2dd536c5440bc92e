"""The encoder of I-JEPA alone, in one of three vocabularies: transformers (two of them), and timm or official code.

It becomes the context and the target encoder. Weights published so are those of the context encoder.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from jepa.weights.formats.names import Entry, Table, layer
from jepa.weights.formats.official import ENCODER as TIMM
from jepa.weights.formats.settings import (
    activation_notes,
    as_converted,
    check_table,
    checkpoint_of,
    encoder_width,
    heads_of,
    image_config,
    pixel_statistics,
    square_side,
)
from jepa.weights.formats.stored import Reading, Stored

NAME = "the encoder of I-JEPA (transformers, timm)"


def _table(patches: str, attention: str, names: Mapping[str, str], layers: str) -> Table:
    """Names of transformers. attention: of query, key and value, with `*` for that word's place in `names`."""
    parts = tuple(f"{layers}.*.{attention.format(part)}" for part in names["parts"].split())
    others = {"norm1": "layernorm_before", "norm2": "layernorm_after", **names}
    del others["parts"]
    return Table(
        Entry("embedding.project", (patches,), shape="patches"),
        Entry("blocks.*.attention.qkv", parts),
        *(layer(f"blocks.*.{ours}", f"{layers}.*.{theirs}") for ours, theirs in others.items()),
        layer("norm", "layernorm"),
    )


_PATCHES = "embeddings.patch_embeddings.projection"
SAVED = _table(  # by save_pretrained, also on the hub
    _PATCHES,
    "attention.attention.{}",
    {
        "parts": "query key value",
        "attention.proj": "attention.output.dense",
        "mlp.0": "intermediate.dense",
        "mlp.2": "output.dense",
    },
    "encoder.layer",
)
IN_MEMORY = _table(  # by state_dict() of recent versions
    _PATCHES,
    "attention.{}",
    {"parts": "q_proj k_proj v_proj", "attention.proj": "attention.o_proj", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"},
    "layers",
)
# The vocabularies: a weight that only one has, the table of names, and the name of the positions.
_VOCABULARIES = (
    ("encoder.layer.0.attention.attention.query.weight", SAVED, "embeddings.position_embeddings"),
    ("layers.0.attention.q_proj.weight", IN_MEMORY, "embeddings.position_embeddings"),
    ("blocks.0.attn.qkv.weight", TIMM, "pos_embed"),
)
_LEFT_OUT = ("classifier.", "pooler.", "head.")  # of classifiers on top
_CLASS_TOKENS = {"embeddings.cls_token", "cls_token", "cls_embed"}


def recognises(stored: Stored) -> bool:
    """Whether it has blocks of one of the vocabularies, positions, patches of images, and no class token."""
    state = _state(stored.content)
    known = [positions for weight, _, positions in _VOCABULARIES if weight in state and positions in state]
    patches = next((state[name] for name in (f"{_PATCHES}.weight", "patch_embed.proj.weight") if name in state), None)
    return bool(known) and isinstance(patches, Tensor) and patches.ndim == 4 and not _CLASS_TOKENS & set(state)


def read(stored: Stored) -> Reading:
    """The encoder, twice."""
    state = _state(stored.content)
    table, positions = next(one[1:] for one in _VOCABULARIES if one[0] in state)
    left_out = sorted(name for name in state if name.startswith(_LEFT_OUT))
    fixed = state[positions]
    if not stored.settings:
        check_table(positions, fixed, (square_side(fixed.shape[1], positions),) * 2)
    encoder = table.to_ours({name: one for name, one in state.items() if name not in {positions, *left_out}})
    model = {f"{name}.{key}": one for name in ("context_encoder", "target_encoder") for key, one in encoder.items()}
    if stored.settings:
        return as_converted(stored, model)
    width, patch = encoder_width(model), len(encoder["embedding.project.weight"][0]) // 3
    heads, notes = stored.config.get("num_attention_heads") or heads_of(width), activation_notes(stored.config)
    timm = stored.config.get("pretrained_cfg")
    pixels = pixel_statistics(timm, "mean", "std") if isinstance(timm, dict) else pixel_statistics(stored.pixels)
    config = image_config(model, heads, fixed, round(patch**0.5), pixels)
    notes += [
        "its one encoder, the context encoder in published files, is taken as context and target encoder; no predictor",
        f"left out: {', '.join([positions, *left_out])} (the positions are computed)",
    ]
    if "num_attention_heads" not in stored.config:
        notes.append(f"{heads} heads, as published for that width; no weight tells it")
    return Reading(checkpoint_of(stored.path, "image", config, model), tuple(notes))


def _state(content: Any) -> dict[str, Any]:
    """The weights in a file, without the wrappers of training scripts and of classifiers."""
    inner = content.get("state_dict", content) if isinstance(content, dict) else {}
    if not isinstance(inner, dict):
        return {}
    return {str(name).removeprefix("module.").removeprefix("ijepa."): value for name, value in inner.items()}
