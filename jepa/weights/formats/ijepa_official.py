"""I-JEPA as its authors publish it: a `.pth.tar` with `encoder`, `predictor` and `target_encoder`."""

from jepa.weights.formats.official import IMAGE_PREDICTOR, has_networks, read_networks
from jepa.weights.formats.settings import (
    check_table,
    checkpoint_of,
    encoder_size,
    encoder_width,
    heads_of,
    predictor_size,
    square_side,
)
from jepa.weights.formats.stored import Reading, Stored

NAME = "I-JEPA"


def recognises(stored: Stored) -> bool:
    """Whether it holds the three networks, for patches of images."""
    return has_networks(stored, axes=2)


def read(stored: Stored) -> Reading:
    """All three networks; the table of positions tells the resolution."""
    found = read_networks(stored.content, IMAGE_PREDICTOR)
    if "encoder.pos_embed" not in found.tables:
        raise ValueError("encoder.pos_embed is missing")
    side = square_side(found.tables["encoder.pos_embed"].shape[1], "encoder.pos_embed")
    for name, table in found.tables.items():
        check_table(name, table, (side, side))
    heads = heads_of(encoder_width(found.model))
    predictor = {**predictor_size(found.model, heads), "blocks": "separate"}
    size = encoder_size(found.model, heads)
    config = {
        "data": {"image_size": side * found.patch[1], "patch_size": found.patch[1]},
        "model": {"size": size, "positions": "sincos_published", "predictor": predictor},
        "loss": {"distance": "smooth_l1"},
    }
    notes = (
        f"{heads} heads in encoder and predictor, as published for a width of {size['width']}; no weight tells it",
        f"left out: {', '.join([*found.left_out, *found.tables])} (the positions are computed)",
    )
    return Reading(checkpoint_of(stored.path, "image", config, found.model), notes)
