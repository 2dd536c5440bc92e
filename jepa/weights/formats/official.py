"""What the files of I-JEPA, V-JEPA and V-JEPA 2's authors share: three networks, names of weights, unused entries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jepa.config import plain
from jepa.weights.formats.export import PLACE, Export, Written, check_weights
from jepa.weights.formats.last_layer import with_last_layer
from jepa.weights.formats.names import Entry, Table, layer
from jepa.weights.formats.stored import SETTINGS, Stored, open_stored

NETWORKS = {"context_encoder": "encoder", "predictor": "predictor", "target_encoder": "target_encoder"}
# What a training script stores beside the networks.
TRAINING = {"opt", "scaler", "epoch", "loss", "batch_size", "world_size", "lr"}
_BLOCKS = {
    "norm1": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.proj": "attn.proj",
    "norm2": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}
PATCHES = "patch_embed.proj.weight"


def _blocks(theirs: str) -> tuple[Entry, ...]:
    """A transformer's blocks; theirs: what they are called."""
    return tuple(layer(f"blocks.*.{one}", f"{theirs}.*.{other}") for one, other in _BLOCKS.items())


ENCODER_ENTRIES = (
    Entry("embedding.project", ("patch_embed.proj",), shape="patches"),
    *_blocks("blocks"),
    layer("norm", "norm"),
)
PREDICTOR_ENTRIES = (*_blocks("predictor_blocks"), layer("norm", "predictor_norm"), layer("project", "predictor_proj"))
_EMBED = layer("embed", "predictor_embed")
ENCODER = Table(*ENCODER_ENTRIES)
IMAGE_PREDICTOR = Table(_EMBED, *PREDICTOR_ENTRIES, Entry("mask_tokens.0", ("mask_token",), ("",), "token"))
VIDEO_PREDICTOR = Table(_EMBED, *PREDICTOR_ENTRIES, Entry("mask_tokens.*", ("mask_tokens.*",), ("",), "token"))


class Networks(NamedTuple):
    """The networks of a file. tables: of positions, under their names. left_out: names of everything else."""

    model: dict[str, Tensor]  # under our names
    patch: tuple[int, ...]  # shape of a patch: channels, frames of videos, rows, columns
    tables: dict[str, Tensor]
    left_out: list[str]


def has_networks(stored: Stored, axes: int) -> bool:
    """Whether a file holds the three networks, with patches of so many axes, as far as it has patches."""
    content = stored.content
    if not isinstance(content, dict) or not all(isinstance(content.get(one), dict) for one in NETWORKS.values()):
        return False
    weight = without_wrappers(content["encoder"]).get(PATCHES)
    return weight is None or weight.ndim == axes + 2


def read_networks(content: Mapping[str, Any], predictor: Table) -> Networks:
    """The networks in the content of a file; raises ValueError for a weight that is missing, or has no place."""
    model: dict[str, Tensor] = {}
    tables: dict[str, Tensor] = {}
    if strange := sorted(set(content) - {*NETWORKS.values()} - TRAINING):
        raise ValueError(f"it also holds {strange[0]}, which no published file has")
    patch: tuple[int, ...] = ()
    for ours, theirs in NETWORKS.items():
        state, table = without_wrappers(content[theirs]), predictor if ours == "predictor" else ENCODER
        named = {one: state.pop(one) for one in ("pos_embed", "predictor_pos_embed") if one in state}
        tables |= {f"{theirs}.{name}": value for name, value in named.items()}
        model |= {f"{ours}.{name}": value for name, value in table.to_ours(state, f"{theirs}.").items()}
        if ours == "context_encoder":
            patch = tuple(state[PATCHES].shape[1:])
    return Networks(model, patch, tables, sorted(set(content) - {*NETWORKS.values()}))


def without_wrappers(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict without the prefixes of DDP and of their wrapper for several masks."""
    return {name.removeprefix("module.").removeprefix("backbone."): value for name, value in state.items()}


def write_networks(export: Export, path: Path, predictor: Table, prefix: str) -> Written:
    """Write the three networks as the training scripts store them; their code reads the other entries of a dictionary.

    prefix: of the names, from DDP and from wrappers for several masks.
    """
    content: dict[str, Any] = {}
    beside = export.beside_networks
    export, left_out = with_last_layer(export)
    for ours, theirs in NETWORKS.items():
        table = predictor if ours == "predictor" else ENCODER
        state = table.to_theirs(export.weights(ours), export.patch)
        model, name = export.config.model, "predictor_pos_embed" if ours == "predictor" else "pos_embed"
        positions = export.table(model.predictor.width if ours == "predictor" else model.vit.width)
        if positions is not None:
            state[name] = positions
        content[theirs] = {f"{prefix}{name}": value for name, value in state.items()}
    tree = plain(export.config)
    settings = {**export.settings, "stages": tree["stages"], "evaluate": {"encoder": export.config.evaluated_encoder}}
    torch.save({**content, "epoch": 0, SETTINGS: settings}, path)
    predictor_heads, heads = export.config.model.predictor.heads, export.config.model.vit.heads
    note = f"the number of heads (encoder {heads}, predictor {predictor_heads}), which must be given to their code"
    usage = f"torch.load({PLACE}) and load_state_dict of " + ", ".join(NETWORKS.values())
    return Written(usage, (note, *left_out, *beside))


def check_networks(path: Path, export: Export, predictor: Table) -> str:
    """Read the file and compare the weights with ours, as the official code is in no package; raises FormatError."""
    return check_weights(with_last_layer(export)[0], read_networks(open_stored(path).content, predictor).model)
