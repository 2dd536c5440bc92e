"""Settings without effect: a config dataclass may name its settings that others switch off.

`no_effect(self, use)` of a config dataclass returns {setting: reason}; the setting is a dotted path inside the
dataclass. The reason completes "has no effect: ..."; it says what switches the setting off.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jepa.config.build import ConfigError, Tree

ABSENT = object()


@dataclass(frozen=True)
class Use:
    """What a config is used for.

    config: the whole config. modality: its modality. evaluates: it serves `jepa evaluate` instead of a training.
    processes: number of training processes, None if unknown. set_by_user: settings of the command line and of a YAML
    file of the user. set_by_recipe: those of a recipe.
    """

    config: Any
    modality: Any
    evaluates: bool = False
    processes: int | None = None
    set_by_user: Tree = field(default_factory=dict)
    set_by_recipe: Tree = field(default_factory=dict)

    def is_set(self, path: str) -> bool:
        """Whether this setting was set at all; check this before costly rules."""
        return self.is_set_by_user(path) or value_at(self.set_by_recipe, path) is not ABSENT

    def is_set_by_user(self, path: str) -> bool:
        """Whether the user set this setting; check this before rules that open the data."""
        return value_at(self.set_by_user, path) is not ABSENT


def without_effect(use: Use) -> dict[str, str]:
    """All settings of a config that have no effect, with the reason."""
    return dict(_of_section(use.config, "", use))


def check_effects(use: Use, overrides: Tree) -> dict[str, str]:
    """Raise ConfigError for overrides without effect -> the other settings without effect."""
    found = without_effect(use)
    refuse(those_in(overrides, found))
    return found


def those_in(tree: Tree, found: Mapping[str, str]) -> dict[str, str]:
    """The settings without effect that a layer of a config sets."""
    return {path: reason for path, reason in found.items() if value_at(tree, path) is not ABSENT}


def check_recipe(
    found: Mapping[str, str], recipe: Tree, defaults: Tree, alone: Callable[[], Mapping[str, str]], own: Tree | None
) -> list[str]:
    """Notes on settings of a recipe that overrides switch off.

    found: settings without effect. alone: those of the recipe without overrides. own: what stands in the recipe's file
    itself, if that is a file of the user: there, settings that have no effect even alone are errors. Those of its base
    are noted.
    """
    paths = [path for path in those_in(recipe, found) if value_at(recipe, path) != value_at(defaults, path)]
    before = alone() if paths else {}
    written = those_in(own or {}, before)
    refuse({path: written[path] for path in paths if path in written}, " from the file of --config")
    by_reason: dict[str, list[str]] = {}
    for path in paths:
        if path not in before or own is not None:
            by_reason.setdefault(found[path], []).append(path)
    return [f"no effect here: {', '.join(names)} of the recipe, as {reason}" for reason, names in by_reason.items()]


def refuse(wrong: Mapping[str, str], where: str = "") -> None:
    """Raise ConfigError if there are any of these settings without effect."""
    if wrong:
        sentences = "; ".join(f"{path}: has no effect: {reason}" for path, reason in wrong.items())
        raise ConfigError(f"{sentences}. Remove {'it' if len(wrong) == 1 else 'them'}{where}, or change that")


def _of_section(section: Any, prefix: str, use: Use) -> Iterator[tuple[str, str]]:
    declared: Mapping[str, str] = section.no_effect(use) if hasattr(section, "no_effect") else {}
    yield from ((prefix + name, reason) for name, reason in declared.items())
    for one in dataclasses.fields(section):
        value = getattr(section, one.name)
        parts = {f"{one.name}.{index}": item for index, item in enumerate(value)} if isinstance(value, tuple) else {}
        for name, part in (parts or {one.name: value}).items():
            if dataclasses.is_dataclass(part):
                yield from _of_section(part, f"{prefix}{name}.", use)


def is_set(tree: Tree, path: str) -> bool:
    """Whether a layer of a config has a setting."""
    return value_at(tree, path) is not ABSENT


def value_at(tree: Any, path: str) -> Any:
    """The value at a path of keys and indices; ABSENT if there is none."""
    for key in path.split("."):
        if isinstance(tree, Mapping) and key in tree:
            tree = tree[key]
        elif isinstance(tree, Sequence) and not isinstance(tree, str) and key.isdecimal() and int(key) < len(tree):
            tree = tree[int(key)]
        else:
            return ABSENT
    return tree
