"""V-JEPA 2 as its authors publish it: a `.pt` with `encoder`, `predictor` and `target_encoder`."""

from pathlib import Path

from jepa.weights.formats.export import Export, Written
from jepa.weights.formats.obstacles import in_encoder, in_predictor, not_square
from jepa.weights.formats.official import VIDEO_PREDICTOR, check_networks, has_networks, read_networks, write_networks
from jepa.weights.formats.settings import (
    VJEPA2_HEADS,
    as_converted,
    checkpoint_of,
    encoder_width,
    heads_of,
    video_config,
)
from jepa.weights.formats.stored import Reading, Stored, open_stored

NAME = "V-JEPA 2"
POSITIONS = ("rotary_vjepa2",)
PREDICTOR_HEADS = 12
FRAMES, SIZE = 64, 256  # of published weights, unless their name ends in another size, as in vitg-384.pt


def recognises(stored: Stored) -> bool:
    """Whether it holds the three networks, for tubelets."""
    return has_networks(stored, axes=3)


def read(stored: Stored) -> Reading:
    """All three networks."""
    found = read_networks(stored.content, VIDEO_PREDICTOR)
    if stored.settings:
        return as_converted(stored, found.model)
    size = 384 if stored.path.stem.endswith("384") else SIZE
    tubelet, patch = found.patch[1:3]
    grid = (FRAMES // tubelet, size // patch, size // patch)
    heads = (heads_of(encoder_width(found.model), VJEPA2_HEADS), PREDICTOR_HEADS)
    config = video_config(found.model, heads, grid, found.patch, "rotary_vjepa2")
    unused = [f"{name} (rotary positions need no table)" for name in found.tables]
    notes = (
        f"{heads[0]} heads in the encoder and {heads[1]} in the predictor, {FRAMES} frames of {size} x {size}, "
        "4 a second, as published; no weight tells it",
        f"left out: {', '.join([*found.left_out, *unused]) or 'nothing'}",
    )
    return Reading(checkpoint_of(stored.path, "video", config, found.model), notes)


def obstacle(export: Export) -> str:
    """What V-JEPA 2's code does not have."""
    return in_encoder(export) or in_predictor(export) or not_square(export)


def write(export: Export, path: Path) -> Written:
    """Write all three networks."""
    return write_networks(export, path, VIDEO_PREDICTOR, "module.backbone.")


def check(path: Path, export: Export) -> str:
    """Read the file and compare the weights with ours, as the official code is in no package."""
    return check_networks(export, read(open_stored(path)).checkpoint.model)
