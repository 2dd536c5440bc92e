"""V-JEPA 2.1 as its authors publish it: norms of four levels, a predictor of all four, marks of images and videos.

The distilled B and L have a predictor of another encoder's representation; it is left out.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jepa.weights.formats.names import Entry, Table, layer
from jepa.weights.formats.official import ENCODER_ENTRIES, PATCHES, PREDICTOR_ENTRIES, TRAINING, without_wrappers
from jepa.weights.formats.settings import VJEPA2_HEADS, checkpoint_of, encoder_width, heads_of, video_config
from jepa.weights.formats.stored import Reading, Stored
from jepa.weights.formats.vjepa2_official import FRAMES, PREDICTOR_HEADS

NAME = "V-JEPA 2.1"
SIZE = 384  # of published weights
LEVELS = {  # numbers of the blocks whose outputs are normed, by depth
    12: (3, 6, 9, 12),
    24: (6, 12, 18, 24),
    40: (10, 20, 30, 40),
    48: (12, 24, 38, 48),
}
_ENCODERS = {"context_encoder": ("encoder",), "target_encoder": ("target_encoder", "ema_encoder")}
_IMAGES = ("patch_embed_img.", "img_mod_embed")  # for images, which here are videos of one frame
_VIDEO = "video_mod_embed"  # added to every token of a video
_LAST = "norms_block.3."

ENCODER = Table(*ENCODER_ENTRIES, layer("level_norms.*", "norms_block.*"))
PREDICTOR = Table(
    *PREDICTOR_ENTRIES,
    layer("embed.0", "predictor_embed.0"),
    layer("embed.2", "predictor_embed.2"),
    layer("project_context", "predictor_proj_context"),
    Entry("mask_tokens.*", ("mask_tokens.*",), ("",), "token"),
)


def recognises(stored: Stored) -> bool:
    """Whether one of its encoders has norms of several levels."""
    content = stored.content if isinstance(stored.content, dict) else {}
    states = [content[name] for names in _ENCODERS.values() for name in names if isinstance(content.get(name), dict)]
    return any("norms_block.0.weight" in without_wrappers(state) for state in states)


def read(stored: Stored) -> Reading:
    """Both encoders, one for both if the file has one, and the predictor of four levels."""
    content, model, notes = stored.content, dict[str, Tensor](), list[str]()
    allowed = {"predictor", *TRAINING, *(name for names in _ENCODERS.values() for name in names)}
    if strange := sorted(set(content) - allowed):
        raise ValueError(f"it also holds {strange[0]}, which no published file has")
    states = {ours: content[name] for ours, names in _ENCODERS.items() for name in names if name in content}
    if len(states) == 1:
        notes.append("its one encoder is taken as context and target encoder")
    encoders = {id(state): _encoder(state) for state in states.values()}
    first = next(iter(states.values()))
    for ours in _ENCODERS:
        model |= {f"{ours}.{name}": value for name, value in encoders[id(states.get(ours, first))].items()}
    left_out = [*sorted(set(content) & TRAINING), "patch_embed_img and img_mod_embed (of images)"]
    predictor = without_wrappers(content.get("predictor") or {})
    if "predictor_embed.2.weight" in predictor:
        model |= {f"predictor.{name}": value for name, value in _predictor(predictor).items()}
    elif predictor:
        left_out.append(
            "predictor (it predicts the representation of the teacher that this encoder was distilled from)"
        )
    notes.append(f"left out: {', '.join(left_out)}")
    patch = tuple(without_wrappers(first)[PATCHES].shape[1:])
    return Reading(checkpoint_of(stored.path, "video", _config(model, patch), model), tuple(notes))


def _config(model: Mapping[str, Tensor], patch: tuple[int, ...]) -> dict[str, Any]:
    grid = (FRAMES // patch[1], SIZE // patch[2], SIZE // patch[2])
    heads = (heads_of(encoder_width(model), VJEPA2_HEADS), PREDICTOR_HEADS)
    config = video_config(model, heads, grid, patch, "rotary_vjepa2_1")
    depth = config["model"]["size"]["depth"]
    if depth not in LEVELS:
        raise ValueError(f"its encoder has {depth} blocks; published ones have {', '.join(map(str, LEVELS))}")
    config["model"] |= {"levels": LEVELS[depth], "target_layers": LEVELS[depth], "target_join": "each"}
    config["loss"] |= {"visible": "distance" if config["model"]["predictor"] else "none"}
    return config


def _encoder(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """One encoder under our names: the mark of videos is part of the bias of the patches."""
    found = {name.replace(_LAST, "norm."): one for name, one in without_wrappers(state).items()}
    mark = found.pop(_VIDEO, None)
    ours = ENCODER.to_ours({name: one for name, one in found.items() if not name.startswith(_IMAGES)})
    if isinstance(mark, Tensor):
        ours["embedding.project.bias"] = ours["embedding.project.bias"] + mark.flatten()
    return ours


def _predictor(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The predictor under our names: the mark of videos is part of the last bias of `embed` and of the mask tokens."""
    found = dict(state)
    mark = found.pop(_VIDEO, torch.zeros(1)).flatten()
    ours = PREDICTOR.to_ours({name: one for name, one in found.items() if not name.startswith(_IMAGES)})
    marked = {name: one + mark for name, one in ours.items() if name.startswith("mask_tokens.")}
    return {**ours, **marked, "embed.2.bias": ours["embed.2.bias"] + mark}
