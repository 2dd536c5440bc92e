"""torch.export: the graph of an encoder as a `.pt2` file, which torch loads without this package."""

from io import BytesIO
from pathlib import Path

import torch
from torch.export import Dim

from jepa.weights.formats.export import PLACE, Export, Written, check_features
from jepa.weights.formats.obstacles import in_inputs


def obstacle(export: Export) -> str:
    """What the inputs of a graph cannot be."""
    return in_inputs(export)


def write(export: Export, path: Path) -> Written:
    """Write the encoder as a graph with a free batch size; facts are in a file `facts` inside."""
    program = torch.export.export(export.encoder, (export.example(),), dynamic_shapes=({0: Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    facts = "\n".join(f"{name}: {value}" for name, value in export.facts.items())
    memory = BytesIO()  # torch's own file writer ends the process if the disk is full
    torch.export.save(program, memory, extra_files={"facts": facts})
    path.write_bytes(memory.getbuffer())
    return Written(f"torch.export.load({PLACE}).module()(inputs)")


def check(path: Path, export: Export) -> str:
    """Compare features of the exported program."""
    return check_features(export, torch.export.load(path).module())
