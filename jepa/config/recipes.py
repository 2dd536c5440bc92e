"""Recipes: YAML files in `configs/` of the checkout (installed wheels hold a copy) or beside a modality.

A recipe may start from another one: `base: video/vitl16_vjepa2` takes its settings, and the other keys change some.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from jepa.config import ConfigError, Tree, merge, read_yaml

_HERE = Path(__file__).resolve().parent.parent
FOLDER = next((path for path in (_HERE / "configs", _HERE.parent / "configs") if path.is_dir()), _HERE / "configs")


def read_recipe(name_or_path: str, modality_type: type | None = None) -> Tree:
    """Read a recipe by its name in a `configs/` folder (image, image/vit_huge) or by the path of a YAML file.

    modality_type: a modality class; a `configs/` folder beside its module may hold more recipes.
    """
    return _read("--config", name_or_path, recipes(modality_type), ())


def without_base(path: str) -> Tree:
    """The settings that stand in the YAML file of a recipe itself, not in those that it starts from."""
    tree = read_yaml(Path(path))
    return {key: value for key, value in tree.items() if key != "base"}


def _read(asked: str, name_or_path: str, known: Mapping[str, Path], above: tuple[Path, ...]) -> Tree:
    """A recipe over its bases; `above` are the files that start from it, the last one directly."""
    path = known.get(name_or_path, (above[-1].parent if above else Path()) / name_or_path)
    if not path.is_file():
        names = ", ".join(sorted(known)) or "none"
        raise ConfigError(f"{asked} {name_or_path} is neither a file nor a recipe; recipes: {names}")
    if path.resolve() in above:
        raise ConfigError(f"{asked} {name_or_path} starts from itself")
    tree = read_yaml(path)
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: {base} is neither a file nor a recipe")
    of_base: Tree = merge(_read(f"{path}: base:", base, known, (*above, path.resolve())), tree)
    return of_base


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
