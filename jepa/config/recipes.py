"""Recipes: YAML files in `configs/` of the checkout (installed wheels hold a copy) or beside a modality."""

import re
import sys
from pathlib import Path

from jepa.config import ConfigError, Tree, read_yaml

_HERE = Path(__file__).resolve().parent.parent
FOLDER = next((path for path in (_HERE / "configs", _HERE.parent / "configs") if path.is_dir()), _HERE / "configs")


def read_recipe(name_or_path: str, modality_type: type | None = None) -> Tree:
    """Read a recipe by its name in a `configs/` folder (image, image/vit_huge) or by the path of a YAML file.

    modality_type: a modality class; a `configs/` folder beside its module may hold more recipes.
    """
    known = recipes(modality_type)
    path = known.get(name_or_path, Path(name_or_path))
    if path.is_file():
        return read_yaml(path)
    names = ", ".join(sorted(known)) or "none"
    raise ConfigError(f"--config {name_or_path} is neither a file nor a recipe; recipes: {names}")


def recipes(modality_type: type | None = None) -> dict[str, Path]:
    """Recipe names -> paths, of the framework and of a modality class."""
    folders = [FOLDER]
    if modality_type is not None and (file := getattr(sys.modules[modality_type.__module__], "__file__", None)):
        folders.append(Path(file).parent / "configs")
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for folder in folders
        for path in sorted(folder.rglob("*.yaml"))
    }


def default_recipe(modality: str, modality_type: type | None = None) -> str | None:
    """The default recipe of a modality: the one with its name, or `tiny` in the folder with its name.

    A `package.module:Class` has the name of its class: audio for Audio, time-series for TimeSeries. It never gets a
    recipe of the framework, even if the names match.
    """
    known, name = recipes(modality_type), plain_name(modality)
    if ":" in modality:
        known = {recipe: path for recipe, path in known.items() if not path.is_relative_to(FOLDER)}
    return next((recipe for recipe in (name, f"{name.replace('-', '_')}/tiny") if recipe in known), None)


def plain_name(modality: str) -> str:
    """A modality's name for files and folders: audio, also for some_package.module:Audio."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", modality.rpartition(":")[2].rpartition(".")[2]).lower()
