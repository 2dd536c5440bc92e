"""V-JEPA 2 in transformers: VJEPA2Model, as config.json and safetensors. Its one encoder becomes both of ours."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa.probe.network import EPS as PROBE_EPSILON
from jepa.probe.saved import SavedProbe
from jepa.transformer import NORM_EPS
from jepa.weights.formats.export import PLACE, Export, Written, check_features, largest_difference
from jepa.weights.formats.last_layer import with_last_layer
from jepa.weights.formats.names import Entry, Table, layer
from jepa.weights.formats.obstacles import in_networks
from jepa.weights.formats.probes import transformers as probe_names
from jepa.weights.formats.settings import (
    VJEPA2_HEADS,
    activation_notes,
    as_converted,
    checkpoint_of,
    encoder_width,
    heads_of,
    pixel_statistics,
    video_config,
)
from jepa.weights.formats.stored import SETTINGS, Reading, Stored
from jepa.weights.formats.transformers_folder import loaded, processor, write_folder, write_json
from jepa.weights.formats.vjepa2_official import FRAMES, POSITIONS as POSITIONS, PREDICTOR_HEADS, SIZE

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
_MASK_TOKEN = "the choice of a mask token: transformers' predictor always takes number 1 of several"
_PROBE = ("pooler.", "classifier.")
_WRAPPER = "vjepa2."  # of the networks inside VJEPA2ForVideoClassification
_EPSILON = (
    f"epsilon {PROBE_EPSILON:g} of the probe's layer norms, as transformers has one epsilon for all; logits differ by "
    f"some 1e-5 unless you set it: for m in model.pooler.modules(): setattr(m, 'eps', {PROBE_EPSILON:g})"
)
_PATCHES = "encoder.embeddings.patch_embeddings.proj.weight"


def recognises(stored: Stored) -> bool:
    """Whether it has the names of VJEPA2Model, perhaps inside VJEPA2ForVideoClassification."""
    content = stored.content
    return isinstance(content, dict) and (_PATCHES in content or f"{_WRAPPER}{_PATCHES}" in content)


def read(stored: Stored) -> Reading:
    """The encoder, twice, and the predictor."""
    left_out = [name for name in stored.content if name.startswith(_PROBE)]
    state = {name.removeprefix(_WRAPPER): one for name, one in stored.content.items() if name not in left_out}
    model, config = from_state(state), stored.config
    if stored.settings:
        return as_converted(stored, model)
    patch = tuple(state[_PATCHES].shape[1:])
    heads = (
        config.get("num_attention_heads") or heads_of(encoder_width(model), VJEPA2_HEADS),
        config.get("pred_num_attention_heads", PREDICTOR_HEADS),
    )
    side = config.get("crop_size", SIZE) // patch[2]
    grid = (config.get("frames_per_clip", FRAMES) // patch[1], side, side)
    notes = activation_notes(config)
    notes.append("its one encoder, the context encoder of the published weights, is taken as both of ours")
    notes.append("clips of 4 frames a second, as published; no file tells it")
    if left_out:
        notes.append("left out: its attentive probe, which jepa convert --only-probe writes")
    settings = video_config(model, heads, grid, patch, "rotary_vjepa2")
    settings["data"] |= pixel_statistics(stored.pixels)
    return Reading(checkpoint_of(stored.path, "video", settings, model), tuple(notes))


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


def obstacle(export: Export) -> str:
    """What VJEPA2Model does not have."""
    probe = export.probe
    return in_networks(export) or ("" if probe is None else _in_probe(probe, export.config.model.vit.heads))


def write(export: Export, path: Path) -> Written:
    """Write a folder that `AutoModel.from_pretrained` loads: one encoder and the predictor, or with a probe on top."""
    beside = export.beside_networks
    export, left_out = with_last_layer(export)
    encoder, predictor = export.weights(export.which), export.weights("predictor")
    state = ENCODER.to_theirs(encoder, export.patch) | PREDICTOR.to_theirs(predictor, export.patch)
    count = export.config.model.predictor.mask_tokens
    state[_TOKENS] = torch.stack([state.pop(f"{_TOKENS}.{number}") for number in range(count)])  # [n, 1, 1, D]
    config, name, notes = _config(export), "AutoModel", [*left_out, *beside, *[_MASK_TOKEN] * (count > 1)]
    if (probe := export.probe) is not None:
        state = {f"{_WRAPPER}{key}": value for key, value in state.items()}
        state |= probe_names(probe.blocks > 1).to_theirs(probe.weights, ())
        config, name, notes = config | _of_probe(probe), "AutoModelForVideoClassification", [*notes, _EPSILON]
        notes += ["the average of neighbouring tokens with which the probe was trained"] * (
            probe.averaged != probe.grid
        )
    write_folder(path, state, {**config, SETTINGS: export.settings})
    settings = {"video_processor_type": "VJEPA2VideoProcessor", **processor(export)}
    write_json(path / "video_preprocessor_config.json", settings)
    usage = f"transformers.{name}.from_pretrained({PLACE}), for videos [B, T, 3, H, W]"
    return Written(usage, (export.other_encoder, *notes))


def check(path: Path, export: Export) -> str:
    """Compare features of transformers with ours."""
    if export.probe is not None:
        return _check_probe(export, export.probe, loaded("AutoModelForVideoClassification", path))
    model = loaded("AutoModel", path)
    return check_features(export, lambda videos: model(videos.transpose(1, 2), skip_predictor=True).last_hidden_state)


def _config(export: Export) -> dict[str, Any]:
    model, data, vit = export.config.model, export.modality.config, export.config.model.vit
    return {
        "model_type": "vjepa2",
        "architectures": ["VJEPA2Model"],
        "dtype": "float32",
        "crop_size": data.size[0],
        "patch_size": data.patch_size,
        "frames_per_clip": data.frames,
        "tubelet_size": data.tubelet,
        "hidden_size": vit.width,
        "num_hidden_layers": vit.depth,
        "num_attention_heads": vit.heads,
        "mlp_ratio": vit.mlp_ratio,
        "layer_norm_eps": NORM_EPS,
        "pred_hidden_size": model.predictor.width,
        "pred_num_hidden_layers": model.predictor.depth,
        "pred_num_attention_heads": model.predictor.heads,
        "pred_num_mask_tokens": model.predictor.mask_tokens,
        "pred_mlp_ratio": 4.0,
    }


def _in_probe(probe: SavedProbe, heads: int) -> str:
    """What the probe of VJEPA2ForVideoClassification does not have."""
    if probe.normed:
        return "a probe on layer-normed tokens (train it with evaluate.attentive_norm=false)"
    if len(probe.weights["classifier.weight"]) < 2:
        return "a probe that predicts a number"
    return "" if probe.heads == heads else f"a probe of {probe.heads} heads (but {heads}, as the encoder has)"


def _of_probe(probe: SavedProbe) -> dict[str, Any]:
    names = probe.classes or tuple(f"LABEL_{number}" for number in range(len(probe.weights["classifier.weight"])))
    return {
        "architectures": ["VJEPA2ForVideoClassification"],
        "num_pooler_layers": probe.blocks - 1,
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }


def _check_probe(export: Export, probe: SavedProbe, theirs: Any) -> str:
    """Compare logits, with the epsilon of our probe and with that of the folder."""
    as_stored = check_features(export, lambda videos: theirs.vjepa2.encoder(videos.transpose(1, 2)).last_hidden_state)
    for module in theirs.pooler.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = PROBE_EPSILON
    logits = replace(export, encoder=_WithProbe(export.encoder, probe))
    difference = largest_difference(logits, lambda videos: theirs(videos.transpose(1, 2)).logits)
    return f"{as_stored}, of logits: {difference:.1e}"


class _WithProbe(torch.nn.Module):
    def __init__(self, encoder: torch.nn.Module, probe: SavedProbe) -> None:
        super().__init__()
        self.encoder, self.probe = encoder, replace(probe, grid=(), averaged=())  # theirs has no averages

    def forward(self, inputs: Tensor) -> Tensor:
        return self.probe.logits(self.encoder(inputs))
