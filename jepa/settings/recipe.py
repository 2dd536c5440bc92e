"""The recipe of a command line: a file of the user, one of ours, or the default one of the modality."""

from dataclasses import dataclass, field
from pathlib import Path

from jepa.compat.stages import current
from jepa.config import ConfigError, Tree
from jepa.config.recipes import default_recipe, read_recipe, recipes, without_base
from jepa.plugins.registry import declared_name, modality_class, names


@dataclass(frozen=True)
class Recipe:
    """The settings of a recipe.

    users_file: those that stand in its file, without its base, if the user wrote it. is_default: nobody chose it.
    """

    tree: Tree = field(default_factory=dict)
    users_file: Tree | None = None
    is_default: bool = False


def chosen_recipe(modality_name: str, config: str | None) -> Recipe:
    """The recipe that `--config` names, or the modality's default one; raises ConfigError."""
    modality_type = modality_class(modality_name)
    chosen = config or default_recipe(declared_name(modality_name), modality_type)
    if chosen is None:
        return Recipe(is_default=True)
    tree = read_recipe(chosen, modality_type)
    if "modality" in tree:  # the config.yaml of a run: it holds all settings, also former ones and those without effect
        theirs = declared_name(str(tree["modality"]))
        if theirs in names() and not issubclass(modality_type, modality_class(theirs)):
            raise ConfigError(f"{chosen} is the config of a run with --modality {theirs}, not {modality_name}")
        return Recipe(current(tree), is_default=config is None)
    ours = recipes(modality_type)
    is_ours = chosen in ours or Path(chosen).resolve() in map(Path.resolve, ours.values())
    return Recipe(tree, None if is_ours else without_base(chosen), config is None)
