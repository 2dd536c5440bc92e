"""I-JEPA as its authors publish it: a `.pth.tar` with `encoder`, `predictor` and `target_encoder`."""

from functools import partial

from jepa.weights.formats.export import Export
from jepa.weights.formats.obstacles import SINCOS, in_networks, several_mask_tokens
from jepa.weights.formats.official import IMAGE_PREDICTOR, check_networks, has_networks, read_networks, write_networks
from jepa.weights.formats.settings import (
    as_converted,
    check_table,
    checkpoint_of,
    encoder_width,
    heads_of,
    image_config,
    pixel_statistics,
    square_side,
)
from jepa.weights.formats.stored import Reading, Stored

NAME = "I-JEPA"
POSITIONS = SINCOS
write = partial(write_networks, predictor=IMAGE_PREDICTOR, prefix="module.")
check = partial(check_networks, predictor=IMAGE_PREDICTOR)


def recognises(stored: Stored) -> bool:
    """Whether it holds the three networks, for patches of images."""
    return has_networks(stored, axes=2)


def read(stored: Stored) -> Reading:
    """All three networks; the table of positions tells the resolution."""
    found = read_networks(stored.content, IMAGE_PREDICTOR)
    if stored.settings:
        return as_converted(stored, found.model)
    if "encoder.pos_embed" not in found.tables:
        raise ValueError("encoder.pos_embed is missing")
    first = found.tables["encoder.pos_embed"]
    for name, table in found.tables.items():
        check_table(name, table, (square_side(first.shape[1], name),) * 2)
    heads = heads_of(encoder_width(found.model))
    config = image_config(found.model, heads, first, found.patch[1], pixel_statistics({}))
    notes = (
        f"{heads} heads in encoder and predictor, as published for that width; no weight tells it",
        f"left out: {', '.join([*found.left_out, *found.tables])} (the positions are computed)",
    )
    return Reading(checkpoint_of(stored.path, "image", config, found.model), notes)


def obstacle(export: Export) -> str:
    """What I-JEPA's code does not have."""
    return in_networks(export) or several_mask_tokens(export)
