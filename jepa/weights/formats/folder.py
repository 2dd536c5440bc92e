"""The folder in which weights are shared: networks as safetensors, everything else as JSON. It holds no code."""

import json
import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from jepa.checkpoint import Checkpoint, CheckpointError
from jepa.compat.stages import current
from jepa.disk import replacing, write_text
from jepa.disk.tensors import save_tensors
from jepa.weights.formats.stored import CONFIG, WEIGHTS, read_json  # fixed names: a folder points to no other files

LIBRARY, FORMAT = "openjepa", 1
_CHUNK = 1 << 24


def is_folder(path: Path) -> bool:
    """Whether a path is a folder of this format, perhaps a damaged one."""
    if not (path / CONFIG).is_file():
        return False
    try:
        return read_json(path / CONFIG).get("library_name") == LIBRARY
    except CheckpointError:
        return False


def write_folder(checkpoint: Checkpoint, folder: Path) -> None:
    """Write networks and config of a checkpoint into a folder, without the state of the optimiser."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in checkpoint.model.items()}
    networks, aside = folder / WEIGHTS, folder / f"{WEIGHTS}.partial"
    with replacing(networks, aside):
        save_tensors(tensors, aside, {"format": "pt"})
    content = {
        "library_name": LIBRARY,
        "format": FORMAT,
        "step": checkpoint.step,
        "seconds": checkpoint.seconds,
        "networks": {"bytes": networks.stat().st_size, "sha256": _digest(networks)},
        "config": checkpoint.config,
    }
    write_text(folder / CONFIG, json.dumps(content, indent=1) + "\n", folder / f"{CONFIG}.partial")


def record_files(folder: Path, names: Sequence[str]) -> None:
    """Note in config.json which files were written into the folder, so that a later writer deletes no others."""
    text = json.dumps({**read_json(folder / CONFIG), "files": list(names)}, indent=1) + "\n"
    write_text(folder / CONFIG, text, folder / f"{CONFIG}.partial")


def recorded_files(folder: Path) -> frozenset[str]:
    """The files that `record_files` noted; of a folder without such a note, those that every folder has."""
    found = read_json(folder / CONFIG).get("files")
    names = found if isinstance(found, list) else [CONFIG, WEIGHTS]
    return frozenset(name for name in names if isinstance(name, str))


def read_folder(folder: Path, mmap: bool = False) -> Checkpoint:
    """The checkpoint in a folder, with an empty state of the optimiser; mmap as in `Checkpoint.load`.

    Raises CheckpointError if a file is missing, truncated, or not the one that was written.
    """
    content = read_config(folder)
    networks = folder / WEIGHTS
    _check_networks(networks, content["networks"])
    try:
        tensors: dict[str, Tensor] = load_file(networks)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{networks} cannot be read: {error}") from error
    model = tensors if mmap else {name: value.clone() for name, value in tensors.items()}
    return Checkpoint(content["step"], content["seconds"], current(content["config"]), model, {})


def read_config(folder: Path) -> dict[str, Any]:
    """Content of config.json: step, seconds, networks (bytes, sha256), config; raises CheckpointError."""
    path, content = folder / CONFIG, read_json(folder / CONFIG)
    if content.get("format") != FORMAT:
        found = content.get("format")
        raise CheckpointError(f"{path} is of format {found}, and this version reads format {FORMAT}; update openjepa")
    networks = content.get("networks")
    whole = (
        isinstance(content.get("step"), int)
        and isinstance(content.get("seconds"), (int, float))
        and isinstance(networks, dict)
        and isinstance(networks.get("bytes"), int)
        and isinstance(networks.get("sha256"), str)
        and _is_config(content.get("config"))
    )
    if not whole:
        raise CheckpointError(f"{path} is damaged: it needs step, seconds, networks (bytes, sha256) and config")
    return content


def _is_config(config: Any) -> bool:
    return (
        isinstance(config, dict)
        and isinstance(config.get("modality"), str)
        and all(isinstance(config.get(section), dict) for section in ("data", "model"))
    )


def _check_networks(path: Path, expected: Mapping[str, Any]) -> None:
    """Compare size and hash of the networks; raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; download or copy the folder again")
    found, size = path.stat().st_size, expected["bytes"]
    if found != size:
        share = f" ({math.floor(100 * found / size)} %)" if 0 < found < size else ""
        raise CheckpointError(f"{path} has {found:,} of {size:,} bytes{share}; download or copy it again")
    if _digest(path) != expected["sha256"]:
        raise CheckpointError(f"{path} is not the file that {CONFIG} describes (another SHA-256); download it again")


def _digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
