"""Our own checkpoint file: all networks and the config, for every modality."""

from pathlib import Path

from jepa.checkpoint import Checkpoint
from jepa.weights.formats.export import Export, FormatError, Written, check_weights


def write(export: Export, path: Path) -> Written:
    """Write the checkpoint as one file."""
    if export.checkpoint is None:
        raise FormatError(f"{export.source} is no JEPA, so --to openjepa cannot hold it; use --to onnx or torch-export")
    export.checkpoint.save(path)
    return Written(f'jepa.load("{path.name}")')


def check(path: Path, export: Export) -> str:
    """Compare the weights of the file with ours."""
    return check_weights(export, Checkpoint.load(path).model)
