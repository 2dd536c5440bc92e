"""V-JEPA 2 as its authors publish it: a `.pt` with `encoder`, `predictor` and `target_encoder`."""

from typing import Any

from torch import Tensor

from jepa.weights.formats.official import ENCODER, NETWORKS, PREDICTOR, without_wrappers
from jepa.weights.formats.settings import HEADS, checkpoint_of, encoder_size, heads_of, predictor_size
from jepa.weights.formats.stored import Reading, Stored

NAME = "V-JEPA 2"

ENCODER_HEADS = {**HEADS, 1408: 22, 1664: 26}
PREDICTOR_HEADS = 12
FRAMES, SIZE = 64, 256  # of published weights, unless they are named after another size
_UNUSED = {"pos_embed", "predictor_pos_embed"}  # in the files, but the networks rotate queries and keys


def recognises(stored: Stored) -> bool:
    """Whether it has the three networks, and several frames a token."""
    content = stored.content
    return isinstance(content, dict) and {*NETWORKS.values()} <= set(content)


def read(stored: Stored) -> Reading:
    """All three networks."""
    model: dict[str, Tensor] = {}
    left = sorted(set(stored.content) - {*NETWORKS.values()})
    for ours, theirs in NETWORKS.items():
        state = without_wrappers(stored.content[theirs])
        table = PREDICTOR if ours == "predictor" else ENCODER
        unknown = table.unknown(state)
        if strange := sorted(set(unknown) - _UNUSED):
            raise ValueError(f"its {theirs} has {strange[0]}, which V-JEPA 2 does not have")
        left += [f"{theirs}.{name} (unused by rotary positions)" for name in unknown]
        model |= {f"{ours}.{name}": value for name, value in table.to_ours(state).items()}
        if ours == "context_encoder":
            patch = state["patch_embed.proj.weight"].shape[2:]
    width = len(model["context_encoder.embedding.project.weight"])
    config = video_config(model, heads_of(width, ENCODER_HEADS), PREDICTOR_HEADS, FRAMES, SIZE, tuple(patch))
    return Reading(checkpoint_of(stored.path, "video", config, model), (f"left out: {', '.join(left)}",))


def video_config(
    model: dict[str, Tensor], heads: int, predictor_heads: int, frames: int, size: int, patch: tuple[int, ...]
) -> dict[str, Any]:
    """Config of V-JEPA 2, from its weights under our names and what they do not tell."""
    predictor = {**predictor_size(model, predictor_heads), "blocks": "joint"}
    return {
        "data": {"frames": frames, "tubelet": patch[0], "image_size": size, "patch_size": patch[1]},
        "model": {"size": encoder_size(model, heads), "positions": "rotary_vjepa2", "predictor": predictor},
        "loss": {"distance": "l1"},
    }
