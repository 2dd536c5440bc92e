"""Read networks from our checkpoints and from released V-JEPA 2 files: those of its authors and of transformers."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from jepa.checkpoint import Checkpoint, CheckpointError, latest
from jepa.checkpoint.file import read_content

_BLOCK = (
    (r"\.attention\.(query|key|value)\.", r".attention.\1."),
    (r"\.attn\.", ".attention."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
)
_ENCODER = (
    (r"^(module|backbone)\.", ""),
    (r"^(embeddings\.patch_embeddings|patch_embed)\.proj\.", "embedding.project."),
    (r"^layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    *_BLOCK,
)
_PREDICTOR = (
    (r"^(module|backbone)\.", ""),
    (r"^(embeddings\.predictor_embeddings|predictor_embed)\.", "embed."),
    (r"^embeddings\.mask_tokens", "mask_tokens"),
    (r"^(layer|predictor_blocks)\.", "blocks."),
    (r"^(layernorm|predictor_norm)\.", "norm."),
    (r"^(predictor_)?proj\.", "project."),
    *_BLOCK,
)
_TABLES = ("pos_embed", "predictor_pos_embed")  # in the files, but unused: the model rotates queries and keys


def read_networks(path: Path) -> dict[str, Tensor]:
    """Weights of context encoder, predictor and target encoder under our names.

    path: a run directory or checkpoint of ours, a `.pt` of V-JEPA 2's authors (keys `encoder`, `target_encoder`,
    `predictor`), or the `model.safetensors` of transformers' VJEPA2Model, which has one encoder for both.
    The tensors may be mapped: use them before the file is replaced. Raises CheckpointError.
    """
    path = latest(path) if path.is_dir() and latest(path).exists() else path
    if path.suffix == ".safetensors":
        try:
            return from_transformers(load_file(path))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not path.is_file():
        return Checkpoint.load(path, mmap=True).model
    content = read_content(path, mmap=True)
    if isinstance(content, dict) and {"encoder", "target_encoder", "predictor"} <= set(content):
        return from_authors(content)
    return Checkpoint.of(path, content).model


def from_authors(content: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """State dicts in the format of V-JEPA 2's code -> ours."""
    return {
        **_renamed(content["encoder"], _ENCODER, "context_encoder."),
        **_renamed(content["predictor"], _PREDICTOR, "predictor."),
        **_renamed(content["target_encoder"], _ENCODER, "target_encoder."),
    }


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of transformers' VJEPA2Model -> ours; its one encoder becomes both of ours."""
    encoder = {name.removeprefix("encoder."): one for name, one in state.items() if name.startswith("encoder.")}
    predictor = {name.removeprefix("predictor."): one for name, one in state.items() if name.startswith("predictor")}
    return from_authors({"encoder": encoder, "target_encoder": encoder, "predictor": predictor})


def _renamed(state: Mapping[str, Tensor], rules: tuple[tuple[str, str], ...], prefix: str) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        for pattern, replacement in rules[:1] * 2 + rules[1:]:  # `module.backbone.` is two prefixes
            name = re.sub(pattern, replacement, name)
        if name not in _TABLES:
            ours[name] = value
    return {prefix + name: value for name, value in _joined(ours).items()}


def _joined(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join queries, keys and values into one layer, flatten patches to rows, and give each mask token its own name."""
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".attention.query." in name:
            three = [state[name.replace("query", part)] for part in ("query", "key", "value")]
            ours[name.replace("query", "qkv")] = torch.cat(three)
        elif name == "embedding.project.weight":
            ours[name] = value.flatten(1)  # [D, 3, u, p, q] -> [D, values of a patch]
        elif name.startswith("mask_tokens"):
            first = name.removeprefix("mask_tokens").removeprefix(".") or "0"
            for number, token in enumerate(value.reshape(-1, value.shape[-1]), start=int(first)):
                ours[f"mask_tokens.{number}"] = token
        elif not re.search(r"\.attention\.(key|value)\.", name):
            ours[name] = value
    return ours
