"""V-JEPA as its authors publish it: a `.pth.tar` with `encoder`, `predictor` and `target_encoder`."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from jepa.ops.published_positions import published_sincos
from jepa.positions import Grid, grid_positions
from jepa.weights.formats.obstacles import SINCOS, in_networks
from jepa.weights.formats.official import (
    VIDEO_PREDICTOR,
    check_networks,
    has_networks,
    read_networks,
    without_wrappers,
    write_networks,
)
from jepa.weights.formats.settings import (
    as_converted,
    check_table,
    checkpoint_of,
    encoder_width,
    heads_of,
    video_config,
)
from jepa.weights.formats.stored import Reading, Stored

NAME = "V-JEPA"
POSITIONS = SINCOS
obstacle = in_networks
write = partial(write_networks, predictor=VIDEO_PREDICTOR, prefix="module.backbone.")
check = partial(check_networks, predictor=VIDEO_PREDICTOR)


def recognises(stored: Stored) -> bool:
    """Whether it holds the three networks, for tubelets, with tables of positions and no more than two mask tokens.

    Files of V-JEPA 2 may hold tables too, which its networks do not use; they have more mask tokens.
    """
    if not has_networks(stored, axes=3):
        return False
    names = without_wrappers({**stored.content["encoder"], **stored.content["predictor"]})
    return {"pos_embed", "predictor_pos_embed"} <= set(names) and "mask_tokens.2" not in names


def read(stored: Stored) -> Reading:
    """All three networks; the table of positions tells frames and resolution."""
    found = read_networks(stored.content, VIDEO_PREDICTOR)
    if stored.settings:
        return as_converted(stored, found.model)
    grid = _grid("encoder.pos_embed", found.tables["encoder.pos_embed"])
    for name, table in found.tables.items():
        check_table(name, table, grid)
    heads = heads_of(encoder_width(found.model))
    config = video_config(found.model, (heads, heads), grid, found.patch, "sincos_published", {"step": 4})
    notes = (
        f"{heads} heads in encoder and predictor, as published for that width; no weight tells it",
        "clips of every fourth frame, as published",
        f"left out: {', '.join([*found.left_out, *found.tables])} (the positions are computed)",
    )
    return Reading(checkpoint_of(stored.path, "video", config, found.model), notes)


def _grid(name: str, table: Tensor) -> Grid:
    """Time, rows and columns of the only grid that has this table [1, N, D]; raises ValueError."""
    tokens, width = table.shape[-2:]
    for grid in _grids(tokens):
        corners = grid_positions(grid)[[-1]]
        if torch.allclose(table[0, [-1]].float(), published_sincos(corners, width), atol=1e-3):
            return grid
    raise ValueError(f"{name} is not the fixed table of sines and cosines of V-JEPA; learned positions cannot be read")


def _grids(tokens: int) -> Iterator[Grid]:
    """All grids with square frames of so many tokens."""
    side = 1
    while side * side <= tokens:
        if tokens % (side * side) == 0:
            yield (tokens // (side * side), side, side)
        side += 1
