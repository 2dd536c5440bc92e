"""Our own checkpoint file: all networks and the config, for every modality."""

from pathlib import Path

import torch

from jepa.checkpoint import Checkpoint
from jepa.weights.formats.export import Export, FormatError, Written


def write(export: Export, path: Path) -> Written:
    """Write the checkpoint as one file."""
    if export.checkpoint is None:
        raise FormatError(f"{export.source} is no JEPA, so --to openjepa cannot hold it; use --to onnx or torch-export")
    export.checkpoint.save(path)
    return Written(f'jepa.load("{path.name}")')


def check(path: Path, export: Export) -> str:
    """Compare the weights of the file; raises FormatError if they differ."""
    assert export.checkpoint is not None
    ours, theirs = export.checkpoint.model, Checkpoint.load(path).model
    if ours.keys() != theirs.keys() or not all(torch.equal(value, theirs[name]) for name, value in ours.items()):
        raise FormatError(f"{export.source}: weights of the written file differ; not kept")
    return f"all {len(ours)} weights are equal"
