"""The encoder of I-JEPA as a file for timm, whose vision transformers have the names of the authors' code."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa.disk.tensors import save_tensors
from jepa.weights.formats.export import PLACE, Export, Written, check_features
from jepa.weights.formats.obstacles import SINCOS, in_encoder
from jepa.weights.formats.official import ENCODER
from jepa.weights.formats.stored import SETTINGS

POSITIONS = SINCOS
# Models of timm without a class token, and their arguments.
_MODELS = {
    "vit_base_patch16_gap_224": (224, 16, 768, 12, 12, 4.0),
    "vit_huge_patch14_gap_224": (224, 14, 1280, 32, 16, 4.0),
    "vit_huge_patch16_gap_448": (448, 16, 1280, 32, 16, 4.0),
    "vit_giant_patch16_gap_224": (224, 16, 1408, 40, 16, 48 / 11),
}
_ARGUMENTS = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")


def obstacle(export: Export) -> str:
    """What timm's vision transformers do not have."""
    return in_encoder(export)


def write(export: Export, path: Path) -> Written:
    """Write the encoder and its positions."""
    state = ENCODER.to_theirs(export.weights(export.which), export.patch)
    table = export.table(export.config.model.vit.width)
    assert table is not None
    state = {name: value.contiguous().clone() for name, value in {**state, "pos_embed": table}.items()}
    save_tensors(state, path, {"format": "pt", SETTINGS: json.dumps(export.settings)})
    name, different = timm_model(export)
    arguments = {"num_classes": 0, **different}
    settings = [f"{key}={json.dumps(value)}" for key, value in arguments.items()]
    words = ", ".join([f'"{name}"', f"checkpoint_path={PLACE}", *settings])
    mean, std = export.pixels or ([], [])
    usage = f"timm.create_model({words}), for pixels with mean {tuple(mean)} and std {tuple(std)}"
    return Written(usage, (*export.other_networks, *export.beside_networks))


def check(path: Path, export: Export) -> str:
    """Compare features of timm with ours."""
    import timm

    name, different = timm_model(export)
    model: Any = timm.create_model(name, checkpoint_path=str(path), num_classes=0, **different).eval()

    def tokens(images: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = model.forward_features(images)
        return found

    return check_features(export, tokens)


def timm_model(export: Export) -> tuple[str, dict[str, Any]]:
    """The model of timm that is closest to an encoder, and the arguments in which it differs."""
    data, vit = export.modality.config, export.config.model.vit
    side: Any = data.size[0] if len(set(data.size)) == 1 else data.size
    ours = (side, data.patch_size, vit.width, vit.depth, vit.heads, vit.mlp_ratio)
    name = max(_MODELS, key=lambda one: sum(map(_equal, _MODELS[one], ours)))
    theirs = zip(_ARGUMENTS, _MODELS[name], ours, strict=True)
    return name, {key: own for key, usual, own in theirs if not _equal(usual, own)}


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other)
