"""Recipe and overrides -> config and modality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from jepa.config import ConfigError, Tree, defaults, merge, parse_overrides
from jepa.config.effects import Use, check_recipe, refuse, those_in, without_effect
from jepa.console import CONSOLE, shown
from jepa.modality import DataConfig, Modality
from jepa.plugins.registry import modality_class
from jepa.settings.layers import Layers
from jepa.settings.recipe import Recipe
from jepa.settings.start import StartUse, with_start
from jepa.training.config import Config
from jepa.training.run_dir import completed, saved_config
from jepa.weights.load import construct


@dataclass(frozen=True)
class Resolved:
    """A config and its modality.

    notes: sentences to print when the run starts. unused: overrides without effect, with the reason. asks_for_probe:
    whether the user set `probe.every`, and not a recipe.
    """

    config: Config[Any, Any]
    modality: Modality[Any]
    notes: tuple[str, ...] = ()
    unused: Mapping[str, str] = field(default_factory=dict)
    asks_for_probe: bool = False


def resolve(modality_name: str, recipe: Tree, overrides: Sequence[str]) -> tuple[Config[Any, Any], Modality[Any]]:
    """Defaults, then a recipe, then `section.key=value` overrides -> config and its modality.

    By default the run_dir is named by a hash of the config, so that the same command finds its run again. If it holds a
    run, null settings that the data completes (`DataConfig.completed`) are taken from that run.
    Raises ConfigError and UnknownModalityError.
    """
    resolved = resolve_layers(modality_name, Recipe(recipe), overrides)
    return resolved.config, resolved.modality


def resolve_layers(
    modality_name: str,
    recipe: Recipe,
    overrides: Sequence[str],
    *,
    processes: int | None = None,
    keeps_unused: bool = False,
    start: StartUse = "ignored",
) -> Resolved:
    """As `resolve`, with notes, among them settings of the recipe that overrides switch off.

    processes: of the training, None if unknown. Raises ConfigError for settings of the user that have no effect;
    keeps_unused: overrides among them only give notes. start: whether a new run takes over the settings of
    `start_from`; they give way to overrides and to a recipe, unless it is the modality's default one.
    """
    modality_type = modality_class(modality_name)
    config_type = Config.of(modality_type)
    changes = parse_overrides(overrides, config_type)
    layers = Layers(modality_name, modality_type, recipe.tree, changes, recipe.is_default)
    config, modality, notes = _constructed(layers, start)

    def use(config: Config[Any, Any], modality: Modality[Any], changes: Tree) -> Use:
        users = merge(recipe.users_file or {}, changes)
        return Use(config, modality, False, processes, users, recipe.tree)

    def alone() -> dict[str, str]:
        """Settings of the recipe that have no effect without overrides; none if it cannot be used without them."""
        try:
            of_recipe = construct(modality_type, replace(layers, changes={}).built())
        except ConfigError:
            return {}
        return without_effect(use(*of_recipe, {}))

    found = without_effect(use(config, modality, changes))
    unused = those_in(changes, found)
    of_recipe = {path: reason for path, reason in found.items() if path not in unused}
    if not keeps_unused:
        refuse(unused)
    notes += [f"no effect here: {path}, as {reason}" for path, reason in unused.items()]
    apart = alone if changes else lambda: found
    notes += check_recipe(of_recipe, recipe.tree, defaults(config_type), apart, recipe.users_file)
    if "model.projector" in found and config.loss.regulariser == "none":  # DDP refuses parts that nothing trains
        config = replace(config, model=replace(config.model, projector=0))
    asks_for_probe = use(config, modality, changes).is_set_by_user("probe.every")
    return Resolved(config, modality, tuple(notes), unused, asks_for_probe)


def _constructed(layers: Layers, use: StartUse) -> tuple[Config[Any, Any], Modality[Any], list[str]]:
    """The config of layers and of what they take over, its modality, and notes."""
    layers, start, notes = with_start(layers, use)
    given = layers.built()
    saved = saved_config(given)
    config, modality = construct(layers.modality_type, completed(given, saved) if saved else given)
    if start is not None:
        if more := start.fitted(config, modality, layers.chosen):
            layers = replace(layers, taken=merge(layers.taken, more))
            config, modality = construct(layers.modality_type, layers.built())
        notes += [*start.check(config, modality), *start.notes(layers)]
    return config, modality, [*source_notes(given.data, config.data), *notes]


def say(notes: Sequence[str]) -> None:
    """Print notes, each once, although a sweep resolves many configs."""
    for note in notes:
        _say_once(note)


@lru_cache
def _say_once(note: str) -> None:
    CONSOLE.print(shown(note))


def source_notes(given: DataConfig, known: DataConfig) -> list[str]:
    """What to print if the source was not given, but found in the root."""
    if given.source is not None or known.root is None:
        return []
    return [f"data.source={known.source}, as data.root={known.root} holds"]
