"""Recipe and overrides -> config and modality."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from jepa.config import ConfigError, Tree, build, defaults, differences, merge, parse_overrides, plain
from jepa.config.effects import Use, check_recipe, refuse, those_in, without_effect
from jepa.config.recipes import plain_name
from jepa.console import CONSOLE, shown
from jepa.modality import DataConfig, Modality
from jepa.plugins.registry import modality_class
from jepa.training.config import Config
from jepa.training.run_dir import completed, saved_config
from jepa.weights.load import construct


@dataclass(frozen=True)
class Resolved:
    """A config and its modality.

    notes: sentences to print when the run starts. unused: overrides without effect, with the reason.
    """

    config: Config[Any, Any]
    modality: Modality[Any]
    notes: tuple[str, ...] = ()
    unused: Mapping[str, str] = field(default_factory=dict)


def resolve(modality_name: str, recipe: Tree, overrides: Sequence[str]) -> tuple[Config[Any, Any], Modality[Any]]:
    """Defaults, then a recipe, then `section.key=value` overrides -> config and its modality.

    By default the run_dir is named by a hash of the config, so that the same command finds its run again. If it holds a
    run, null settings that the data completes (`DataConfig.completed`) are taken from that run.
    Raises ConfigError and UnknownModalityError.
    """
    resolved = resolve_layers(modality_name, recipe, overrides)
    return resolved.config, resolved.modality


def resolve_layers(
    modality_name: str,
    recipe: Tree,
    overrides: Sequence[str],
    *,
    is_users_file: bool = False,
    processes: int | None = None,
    keeps_unused: bool = False,
) -> Resolved:
    """As `resolve`, with notes, among them settings of the recipe that overrides switch off.

    is_users_file: the recipe is a file of the user. processes: of the training, None if unknown. Raises ConfigError for
    settings of the user that have no effect; keeps_unused: overrides among them only give notes.
    """
    modality_type = modality_class(modality_name)
    config_type = Config.of(modality_type)
    changes = parse_overrides(overrides, config_type)
    given = _built(modality_name, config_type, recipe, changes)
    saved = saved_config(given)
    config, modality = construct(modality_type, completed(given, saved) if saved else given)
    notes = source_notes(given.data, config.data)

    def use(config: Config[Any, Any], modality: Modality[Any], changes: Tree) -> Use:
        users = merge(recipe, changes) if is_users_file else changes
        return Use(config, modality, False, processes, users, recipe)

    def alone() -> dict[str, str]:
        """Settings of the recipe that have no effect without overrides; none if it cannot be used without them."""
        try:
            of_recipe = construct(modality_type, _built(modality_name, config_type, recipe, {}))
        except ConfigError:
            return {}
        return without_effect(use(*of_recipe, {}))

    found = without_effect(use(config, modality, changes))
    unused = those_in(changes, found)
    of_recipe = {path: reason for path, reason in found.items() if path not in unused}
    if not keeps_unused:
        refuse(unused)
    notes += [f"no effect here: {path}, as {reason}" for path, reason in unused.items()]
    notes += check_recipe(of_recipe, recipe, defaults(config_type), alone if changes else lambda: found, is_users_file)
    if "model.projector" in found and config.loss.regulariser == "none":  # DDP refuses parts that nothing trains
        config = replace(config, model=replace(config.model, projector=0))
    return Resolved(config, modality, tuple(notes), unused)


def _built(modality_name: str, config_type: Any, recipe: Tree, changes: Tree) -> Config[Any, Any]:
    """The config of a recipe and changes, with a run_dir."""
    config: Config[Any, Any] = build(config_type, [{"run_dir": ""}, recipe, changes, {"modality": modality_name}])
    if plain(config.run_dir) != ".":
        return config
    return replace(config, run_dir=Path("runs") / f"{plain_name(modality_name)}-{_digest(config_type, config)}")


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


def _digest(config_type: Any, config: Config[Any, Any]) -> str:
    """A hash of the settings. Defaults are left out, so that a setting added later does not rename runs."""
    known, settings = defaults(config_type), plain(config)
    for tree in (known, settings):  # a null source was the name of the generated data, and runs keep their names
        tree["data"]["source"] = tree["data"].get("source") or config.data.world
    text = json.dumps(differences(known, settings))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
