"""Formats of weights, one module each: it recognises a file of its format, reads it and writes it."""

import os
from functools import lru_cache

from jepa.checkpoint import Checkpoint, CheckpointError
from jepa.console import CONSOLE, shown
from jepa.weights.formats import (
    ijepa_encoder,
    ijepa_official,
    vjepa2_1_official,
    vjepa2_official,
    vjepa2_transformers,
    vjepa_official,
)
from jepa.weights.formats.stored import Format, Stored
from jepa.weights.formats.unknown import what_it_is

FORMATS: tuple[Format, ...] = (
    ijepa_official,
    ijepa_encoder,
    vjepa_official,
    vjepa2_1_official,
    vjepa2_official,
    vjepa2_transformers,
)


def format_of(stored: Stored) -> Format | None:
    """The first format that recognises the content."""
    return next((one for one in FORMATS if one.recognises(stored)), None)


def read_stored(stored: Stored) -> Checkpoint:
    """The checkpoint in a weight file of another project; what is left out or assumed is printed.

    Raises CheckpointError.
    """
    found = format_of(stored)
    if found is None:
        known = ", ".join(one.NAME for one in FORMATS)
        raise CheckpointError(
            f"{stored.path} is no checkpoint of this framework and no file of {known}: {what_it_is(stored)}"
        )
    try:
        reading = found.read(stored)
    except ValueError as error:
        raise CheckpointError(f"{stored.path} looks like {found.NAME}, but {error}") from error
    for note in reading.notes:
        _say(f"{stored.path} ({found.NAME}): {note}")
    return reading.checkpoint


@lru_cache
def _say(line: str) -> None:
    """Print a line once, in the first process of a run: the others read the same file."""
    if os.environ.get("RANK", "0") == "0":
        CONSOLE.print(shown(line))
