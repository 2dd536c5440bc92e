"""Configs of networks whose weights are given: sizes from the shapes, heads from a table, as no weight tells them."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa.checkpoint import Checkpoint
from jepa.ops.published_positions import published_sincos
from jepa.positions import Grid, grid_positions
from jepa.weights.formats.stored import Reading, Stored

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}  # of published encoders, by width
VJEPA2_HEADS = {**HEADS, 1408: 22, 1664: 26}
_CHANNELS = 64  # of a head, for other widths


def heads_of(width: int, table: Mapping[int, int] = HEADS) -> int:
    """Attention heads of an encoder of that width: as published, and for other widths 64 channels a head."""
    return table.get(width) or max(1, width // _CHANNELS)


MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet, as in all published code
FOUR_A_SECOND = {"fps": 4.0}  # frames of the clips of V-JEPA 2 in training
_EPSILON = 1e-6  # of layer norms in all published code, and here


def pixel_statistics(stored: Mapping[str, Any], mean: str = "image_mean", std: str = "image_std") -> dict[str, Any]:
    """`pixel_mean` and `pixel_std` of `data`, as a file states them; otherwise ImageNet's."""
    return {"pixel_mean": stored.get(mean) or MEAN, "pixel_std": stored.get(std) or STD}


def activation_notes(config: Mapping[str, Any]) -> list[str]:
    """What a config.json of transformers says of layer norms; raises ValueError for another activation than GELU."""
    if (activation := config.get("hidden_act", "gelu")) != "gelu":
        raise ValueError(f"config.json states hidden_act={activation}, and the networks here have gelu")
    epsilon = config.get("layer_norm_eps", _EPSILON)
    if epsilon == _EPSILON:
        return []
    return [f"config.json states layer_norm_eps={epsilon:g}; the published networks were trained with 1e-06, used here"]


def encoder_width(model: Mapping[str, Tensor]) -> int:
    """Width of the context encoder, from weights under our names."""
    return len(model["context_encoder.embedding.project.weight"])


def encoder_size(model: Mapping[str, Tensor], heads: int) -> dict[str, Any]:
    """`model.size` of the context encoder, from weights under our names."""
    width, hidden = encoder_width(model), len(model["context_encoder.blocks.0.mlp.0.weight"])
    return {
        "width": width,
        "depth": _blocks(model, "context_encoder"),
        "heads": heads,
        "mlp_ratio": _ratio(hidden, width),
    }


def predictor_size(model: Mapping[str, Tensor], heads: int) -> dict[str, Any]:
    """`width`, `depth`, `heads` and `mask_tokens` of `model.predictor`, from weights under our names."""
    tokens = sum(name.startswith("predictor.mask_tokens.") for name in model)
    width = len(model["predictor.norm.weight"])
    return {"width": width, "depth": _blocks(model, "predictor"), "heads": heads, "mask_tokens": tokens}


def video_config(
    model: Mapping[str, Tensor],
    heads: tuple[int, int],
    grid: Grid,
    patch: tuple[int, ...],
    positions: str,
    spacing: Mapping[str, float] = FOUR_A_SECOND,
) -> dict[str, Any]:
    """Config of V-JEPA and V-JEPA 2. heads: of encoder and predictor. patch: channels, frames, rows and columns.

    spacing: of the frames of a clip in training. V-JEPA 2 uses its first mask token for all masks.
    """
    share_mask_token = positions != "sincos_published"
    predictor: dict[str, Any] = {}
    if _has_predictor(model):
        predictor = {**predictor_size(model, heads[1]), "blocks": "joint", "share_mask_token": share_mask_token}
    return {
        "data": {
            **pixel_statistics({}),
            **spacing,
            "frames": grid[0] * patch[1],
            "tubelet": patch[1],
            "image_size": grid[1] * patch[2],
            "patch_size": patch[2],
        },
        "model": {"size": encoder_size(model, heads[0]), "positions": positions, "predictor": predictor},
        "loss": {"distance": "l1"},
    }


def image_config(
    model: Mapping[str, Tensor], heads: int, table: Tensor, patch: int, pixels: Mapping[str, Any]
) -> dict[str, Any]:
    """Config of I-JEPA. table: of positions [1, N, D], which tells the resolution. pixels: `pixel_statistics`."""
    side = square_side(table.shape[1], "the table of positions")
    predictor = {"predictor": {**predictor_size(model, heads), "blocks": "separate"}} if _has_predictor(model) else {}
    return {
        "data": {**pixels, "image_size": side * patch, "patch_size": patch},
        "model": {"size": encoder_size(model, heads), "positions": "sincos_published", **predictor},
        "loss": {"distance": "smooth_l1"},
    }


def square_side(tokens: int, network: str = "it") -> int:
    """Tokens per side of a square grid; raises ValueError if there is none."""
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"{network} has {tokens} positions, which are no square grid")
    return side


def check_table(name: str, table: Tensor, grid: Grid) -> None:
    """Raise ValueError if a table of positions [1, N, D] is not the fixed one of I-JEPA and V-JEPA on that grid."""
    expected = published_sincos(grid_positions(grid), table.shape[-1])
    if table.shape != (1, *expected.shape) or not torch.allclose(table[0].float(), expected, atol=1e-3):
        raise ValueError(
            f"{name} is not the fixed table of sines and cosines of a grid of {grid}; learned positions cannot be read"
        )


def as_converted(stored: Stored, model: dict[str, Tensor]) -> Reading:
    """Networks of a file that `jepa convert` wrote, with the config that it stored in the file."""
    modality = stored.settings.get("modality")
    if not isinstance(modality, str):
        raise ValueError("the config that jepa convert stored in it names no modality")
    note = "settings that no weight tells are those that jepa convert stored in it"
    return Reading(checkpoint_of(stored.path, modality, stored.settings, model), (note,))


def checkpoint_of(path: Path, modality: str, config: Mapping[str, Any], model: dict[str, Tensor]) -> Checkpoint:
    """A checkpoint without a past: step 0, no state of an optimiser."""
    return Checkpoint(0, 0.0, {"modality": modality, "run_dir": f"runs/{path.stem}", **config}, model, {})


def _has_predictor(model: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("predictor.") for name in model)


def _blocks(model: Mapping[str, Tensor], network: str) -> int:
    return sum(bool(re.fullmatch(rf"{network}\.blocks\.\d+\.norm1\.weight", name)) for name in model)


def _ratio(hidden: int, width: int) -> float:
    """The ratio from which a block computes that many hidden units, rounding down."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width
