"""Exports for other libraries beside shared networks, and which libraries can have one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jepa.checkpoint import CheckpointError
from jepa.checkpoint.file import Step
from jepa.config import ConfigError
from jepa.matching import MatchedModality
from jepa.plugins.registry import UnknownModalityError
from jepa.weights.convert import suited, write
from jepa.weights.formats.export import Export
from jepa.weights.opened import open_source

FILES = {"hf": "hf", "timm": "timm/model.safetensors", "onnx": "onnx/encoder.onnx"}  # of each format, in the folder


@dataclass(frozen=True)
class Exports:
    """Formats for other libraries.

    usage: of those that were written, as in `Written`. obstacles: why others cannot be; "" if they can. Formats in
    neither were not tried. matched: whether the networks are for two matching streams.
    """

    matched: bool = False
    usage: dict[str, str] = field(default_factory=dict)
    obstacles: dict[str, str] = field(default_factory=dict)


def write_exports(source: Path | str, wanted: Sequence[str], folder: Path, trust: bool) -> Exports:
    """Write the formats that are wanted into a folder; raises CheckpointError, ConfigError and FormatError."""
    if not wanted:
        return possible_exports(source, trust)
    export = _export(source, trust)
    usage = {}
    for name in wanted:
        path = folder / FILES[name]
        path.parent.mkdir(exist_ok=True)
        usage[name] = write(name, export, path).usage
    others = {name: suited(name, export)[1] for name in FILES if name not in wanted}
    return Exports(_matched(export), usage, others)


def possible_exports(source: Path | str, trust: bool, step: Step | None = None) -> Exports:
    """Which formats networks can be written in; empty if their modality cannot be imported."""
    try:
        export = _export(source, trust, step)
    except (CheckpointError, ConfigError, UnknownModalityError):
        return Exports()
    return Exports(_matched(export), obstacles={name: suited(name, export)[1] for name in FILES})


def _matched(export: Export) -> bool:
    return isinstance(export.modality, MatchedModality)


def _export(source: Path | str, trust: bool, step: Step | None = None) -> Export:
    opened = open_source(source, step=step, trust=trust)
    return Export(
        source=str(source),
        checkpoint=opened.checkpoint,
        config=opened.config,
        modality=opened.modality,
        encoder=opened.encoder(),
        which=opened.config.evaluated_encoder,
        opset=18,
    )
