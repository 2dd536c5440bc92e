"""V-JEPA 2 as its authors publish it: a `.pt` with `encoder`, `predictor` and `target_encoder`."""

from functools import partial

from jepa.weights.formats.obstacles import in_networks
from jepa.weights.formats.official import VIDEO_PREDICTOR, check_networks, has_networks, read_networks, write_networks
from jepa.weights.formats.settings import (
    VJEPA2_HEADS,
    as_converted,
    checkpoint_of,
    encoder_width,
    heads_of,
    video_config,
)
from jepa.weights.formats.stored import Reading, Stored

NAME = "V-JEPA 2"
POSITIONS = ("rotary_vjepa2",)
PREDICTOR_HEADS = 12
FRAMES, SIZE = 64, 256  # of published weights, unless their name ends in another size, as in vitg-384.pt
obstacle = in_networks
write = partial(write_networks, predictor=VIDEO_PREDICTOR, prefix="module.backbone.")
check = partial(check_networks, predictor=VIDEO_PREDICTOR)


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
