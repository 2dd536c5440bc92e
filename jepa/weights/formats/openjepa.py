"""Our own checkpoint file: all networks and the config, for every modality."""

from pathlib import Path

from jepa.checkpoint import Checkpoint
from jepa.weights.formats.export import PLACE, Export, Written, check_weights


def obstacle(export: Export) -> str:
    """Only encoders of other families have no place."""
    return "an encoder of another family" if export.checkpoint is None else ""


def write(export: Export, path: Path) -> Written:
    """Write the checkpoint as one file."""
    assert export.checkpoint is not None
    export.checkpoint.save(path)
    return Written(f"jepa.load({PLACE})")


def check(path: Path, export: Export) -> str:
    """Compare the weights of the file with ours."""
    return check_weights(export, Checkpoint.load(path).model)
