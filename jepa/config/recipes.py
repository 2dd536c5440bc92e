"""Where recipes lie: `configs/` of the checkout, or the copy inside an installed wheel."""

import re
import sys
from pathlib import Path

from jepa.config import ConfigError, Tree, read_yaml

_HERE = Path(__file__).resolve().parent.parent
FOLDER = next((path for path in (_HERE / "configs", _HERE.parent / "configs") if path.is_dir()), _HERE / "configs")


def read_recipe(name_or_path: str, beside: type | None = None) -> Tree:
    """A recipe by its name below a `configs/` (image, image/vit_huge) or by the path of a YAML file.

    beside: the class of a modality, beside whose module a `configs/` folder may hold recipes of its own.
    """
    known = recipes(beside)
    path = known.get(name_or_path, Path(name_or_path))
    if path.is_file():
        return read_yaml(path)
    raise ConfigError(
        f"--config {name_or_path} is neither a file nor a recipe; recipes: {', '.join(sorted(known)) or 'none'}"
    )


def recipes(beside: type | None = None) -> dict[str, Path]:
    """Paths of recipes by name: those that come with the framework, and those beside the class of a modality."""
    folders = [FOLDER]
    if beside is not None and (file := getattr(sys.modules[beside.__module__], "__file__", None)):
        folders.append(Path(file).parent / "configs")
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for folder in folders
        for path in sorted(folder.rglob("*.yaml"))
    }


def default_recipe(modality: str, beside: type | None = None) -> str | None:
    """The recipe that a modality is trained by unless another is named: that of its name, or `tiny` in its folder.

    The name of a `package.module:Class` is that of the class: audio for Audio, time-series for TimeSeries; what comes
    with the framework is not for it, whatever it is called.
    """
    known, name = recipes(beside), plain_name(modality)
    if ":" in modality:
        known = {one: path for one, path in known.items() if not path.is_relative_to(FOLDER)}
    return next((one for one in (name, f"{name.replace('-', '_')}/tiny") if one in known), None)


def plain_name(modality: str) -> str:
    """A modality's name as files are called: audio, also for some_package.module:Audio."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", modality.rpartition(":")[2].rpartition(".")[2]).lower()
