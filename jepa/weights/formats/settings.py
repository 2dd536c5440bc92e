"""Configs of networks whose weights are given: sizes from the shapes, heads from a table, as no weight tells them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from jepa.checkpoint import Checkpoint

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}  # of published encoders, by width
_CHANNELS = 64  # of a head, for other widths


def heads_of(width: int, table: Mapping[int, int] = HEADS) -> int:
    """Attention heads of an encoder of that width: as published, and for other widths 64 channels a head."""
    return table.get(width) or max(1, width // _CHANNELS)


def encoder_size(model: Mapping[str, Tensor], heads: int | None = None) -> dict[str, Any]:
    """`model.size` of the context encoder, from weights under our names."""
    width, hidden = (len(model[f"context_encoder.{name}.weight"]) for name in ("embedding.project", "blocks.0.mlp.0"))
    depth = _blocks(model, "context_encoder")
    return {"width": width, "depth": depth, "heads": heads or heads_of(width), "mlp_ratio": _ratio(hidden, width)}


def predictor_size(model: Mapping[str, Tensor], heads: int) -> dict[str, Any]:
    """`width`, `depth`, `heads` and `mask_tokens` of `model.predictor`, from weights under our names."""
    tokens = sum(name.startswith("predictor.mask_tokens.") for name in model)
    width = len(model["predictor.embed.weight"])
    return {"width": width, "depth": _blocks(model, "predictor"), "heads": heads, "mask_tokens": tokens}


def checkpoint_of(path: Path, modality: str, config: Mapping[str, Any], model: dict[str, Tensor]) -> Checkpoint:
    """A checkpoint without a past: step 0, no state of an optimiser."""
    return Checkpoint(0, 0.0, {"modality": modality, "run_dir": f"runs/{path.stem}", **config}, model, {})


def _blocks(model: Mapping[str, Tensor], network: str) -> int:
    return sum(bool(re.fullmatch(rf"{network}\.blocks\.\d+\.norm1\.weight", name)) for name in model)


def _ratio(hidden: int, width: int) -> float:
    """The ratio from which a block computes that many hidden units, rounding down."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width
