"""The content of weight files of other projects, read without executing anything, and what every format provides."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from jepa.checkpoint import Checkpoint, CheckpointError
from jepa.checkpoint.file import RUN_FILE, read_content

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PIXELS = ("preprocessor_config.json", "video_preprocessor_config.json")
SETTINGS = "openjepa"  # key of our config in files of other formats


@dataclass(frozen=True)
class Stored:
    """A weight file, or a folder with one.

    content: of a torch file, what it holds; of safetensors, tensors by name. Tensors are mapped: they take memory once
    they are used. config: the folder's config.json, empty if there is none. settings: our config, if `jepa convert`
    wrote the file; it holds what weights do not tell, such as the number of heads.
    """

    path: Path
    content: Any
    config: Mapping[str, Any] = field(default_factory=dict)
    pixels: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


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
    if not path.is_dir() and path.suffix != ".safetensors":
        content = read_content(path, mmap=True)
        settings = content.pop(SETTINGS, {}) if isinstance(content, dict) else {}
        return Stored(path, content, settings=settings if isinstance(settings, dict) else {})
    folder = path if path.is_dir() else path.parent
    tensors = _sharded(folder) if path == folder and (folder / INDEX).exists() else _safetensors(path, folder)
    described = path == folder or path.name == WEIGHTS  # settings beside another file may be those of another model
    config, pixels = (_settings(folder, *names) if described else {} for names in ((CONFIG,), PIXELS))
    settings = config.pop(SETTINGS, {}) or ({} if path == folder else _metadata(path))
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: '{SETTINGS}' is a {type(settings).__name__}; expected settings by name")
    return Stored(path, tensors, config, pixels, settings)


def check_folder(path: Path) -> None:
    """Raise CheckpointError if a folder without the files of a run is no folder of weights."""
    if (path / CONFIG).exists():
        return
    if weights := next((name for name in (WEIGHTS, INDEX) if (path / name).exists()), None):
        raise CheckpointError(
            f"{path} has {weights} but no {CONFIG}, which says what the weights are; copy it from where they came from"
        )
    raise CheckpointError(
        f"{path} holds no checkpoint; a folder can be a run directory (with checkpoints/latest.pt), a folder of shards "
        f"(with {RUN_FILE}), or one of transformers or jepa push (with {CONFIG} and {WEIGHTS})"
    )


def _settings(folder: Path, *names: str) -> dict[str, Any]:
    """The first of these JSON files that exists; empty if none does."""
    path = next((folder / name for name in names if (folder / name).exists()), None)
    return {} if path is None else read_json(path)


def _safetensors(path: Path, folder: Path) -> dict[str, Any]:
    path = path / WEIGHTS if path == folder else path
    if not path.is_file():
        others = sorted(one.name for one in folder.glob("*.bin")) if folder.is_dir() else []
        hint = f"; {others[0]} is a pickle, so save the model again as safetensors" if others else ""
        raise CheckpointError(f"no file {path}{hint}")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _sharded(folder: Path) -> dict[str, Any]:
    """Tensors of several files, as an index lists them."""
    files = read_json(folder / INDEX).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(one, str) and one == Path(one).name for one in files.values()):
        raise CheckpointError(f"{folder / INDEX} has no weight_map that names files of its folder")
    tensors: dict[str, Any] = {}
    for name in sorted(set(files.values())):
        found = _safetensors(folder / name, folder)
        if lacking := [key for key, file in files.items() if file == name and key not in found]:
            raise CheckpointError(f"{folder / name} has no {lacking[0]}, which {INDEX} says that it has")
        tensors |= found
    return tensors


def _metadata(path: Path) -> Any:
    """Our config in the metadata of a file of safetensors, empty if there is none."""
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(SETTINGS, "{}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata '{SETTINGS}' cannot be read: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; raises CheckpointError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error or 'it is nested too deeply'}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__} instead of a mapping")
    return found
