"""The content of weight files of other projects, read without executing anything, and what every format provides."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file

from jepa.checkpoint import Checkpoint, CheckpointError
from jepa.checkpoint.file import read_content

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class Stored:
    """A weight file, or a folder with one.

    content: of a torch file, what it holds; of safetensors, tensors by name. Tensors are mapped: they take memory once
    they are used. config: the folder's config.json, empty if there is none.
    """

    path: Path
    content: Any
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """What a format read from a file. notes: what was left out or assumed; the user must see them."""

    checkpoint: Checkpoint
    notes: tuple[str, ...] = ()


class Format(Protocol):
    """What a module of a readable format provides. NAME: for messages, such as "I-JEPA"."""

    NAME: str

    def recognises(self, stored: Stored) -> bool:
        """Whether the content looks like this format; whether it is complete is for `read` to find."""
        ...

    def read(self, stored: Stored) -> Reading:
        """The networks and the config under our names; raises ValueError, a sentence without its subject."""
        ...


def open_stored(path: Path) -> Stored:
    """Content of a weight file, or of a folder with config.json and weights; raises CheckpointError."""
    if path.is_dir():
        return Stored(path, _safetensors(path / WEIGHTS), _read_json(path / CONFIG))
    if path.suffix == ".safetensors":
        beside = path.parent / CONFIG
        return Stored(path, _safetensors(path), _read_json(beside) if beside.exists() else {})
    return Stored(path, read_content(path, mmap=True))


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}; expected settings by name")
    return found
