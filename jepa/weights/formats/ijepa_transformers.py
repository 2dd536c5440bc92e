"""The encoder of I-JEPA as a folder for transformers: `AutoModel`, and `pipeline("image-feature-extraction")`."""

from pathlib import Path
from typing import Any

from jepa.transformer import NORM_EPS
from jepa.weights.formats.export import PLACE, Export, Written, check_features
from jepa.weights.formats.ijepa_encoder import SAVED
from jepa.weights.formats.obstacles import SINCOS, in_encoder
from jepa.weights.formats.stored import SETTINGS
from jepa.weights.formats.transformers_folder import loaded, processor, write_folder, write_json

POSITIONS = SINCOS


def obstacle(export: Export) -> str:
    """What IJepaModel does not have."""
    return in_encoder(export) or ("" if export.probe is None else "an attentive probe on images")


def write(export: Export, path: Path) -> Written:
    """Write a folder that `IJepaModel.from_pretrained` loads: one encoder, under the names that are used on disk."""
    state = SAVED.to_theirs(export.weights(export.which), export.patch)
    table = export.table(export.config.model.vit.width)
    assert table is not None
    state["embeddings.position_embeddings"] = table
    write_folder(path, state, {**_config(export), SETTINGS: export.settings})
    square = len(set(export.modality.config.size)) == 1
    kind = "BitImageProcessor" if square else "ViTImageProcessor"  # which cuts no centre out
    write_json(path / "preprocessor_config.json", {"image_processor_type": kind, **processor(export)})
    usage = f"transformers.AutoModel.from_pretrained({PLACE})"
    return Written(usage, (*export.other_networks, *export.beside_networks))


def check(path: Path, export: Export) -> str:
    """Compare features of transformers with ours."""
    model = loaded("AutoModel", path)
    return check_features(export, lambda images: model(images).last_hidden_state)


def _config(export: Export) -> dict[str, Any]:
    data, vit = export.modality.config, export.config.model.vit
    return {
        "model_type": "ijepa",
        "architectures": ["IJepaModel"],
        "dtype": "float32",
        "hidden_size": vit.width,
        "num_hidden_layers": vit.depth,
        "num_attention_heads": vit.heads,
        "intermediate_size": int(vit.width * vit.mlp_ratio),
        "image_size": data.size[0] if len(set(data.size)) == 1 else list(data.size),
        "patch_size": data.patch_size,
        "layer_norm_eps": NORM_EPS,
    }
