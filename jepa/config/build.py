"""YAML and overrides -> frozen, typed config; unknown keys and wrong values are errors."""

import dataclasses
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, reduce
from operator import getitem
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json, to_jsonable_python

from jepa.config.raw_bytes import hidden, restored
from jepa.errors import UserError

if TYPE_CHECKING:
    from jepa.config.findings import Location

Tree = dict[str, Any]  # nested plain data, as read from YAML


class ConfigError(UserError, ValueError):
    """A mistake in a config; its message says which key, what is wrong and what is allowed."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as in YAML 1.2, and duplicate keys are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"duplicate key '{key}' (line {node.start_mark.line + 1})")
        found = super().construct_mapping(node, deep)
        return {str(key) if type(key) is int else key: value for key, value in found.items()}  # an index of a list


def _construct_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    number = float(node.value)
    return int(number) if number.is_integer() and "." not in node.value else number  # steps=1e4 is an integer


_EXPONENT = re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("!exponent", _EXPONENT, list("-+0123456789"))
_Loader.add_constructor("!exponent", _construct_number)


def parse_yaml(text: str, where: str) -> Any:
    """YAML text -> plain data; raises ConfigError naming `where`."""
    try:
        return restored(yaml.load(hidden(text), _Loader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def read_yaml(path: Path) -> Tree:
    """A YAML file with a mapping at its top."""
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read config {path}: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, not a {type(tree).__name__}")
    return tree


_REPLACED = re.compile(r"stages\.[0-9]+\.predict")  # the keys of this mapping are values: what a stage predicts


def merge(base: Any, layer: Any, path: str = "", replaced: bool = True) -> Any:
    """Merge a layer into a tree: mappings merge, `list.0` replaces an item, every other value is replaced.

    A mapping with another `kind` replaces the old one, since each kind has its own keys. A key called `kind` must
    therefore select a config class. What a stage predicts is replaced too, unless `replaced` is false. path: where the
    tree lies, for the ConfigError of an item that a list lacks.
    """
    if isinstance(base, list) and isinstance(layer, dict) and layer:
        items = {str(key): value for key, value in layer.items()}
        if beyond := [key for key in items if key.isdecimal() and int(key) >= len(base)]:
            count = f"{len(base)} item{'s' if len(base) != 1 else ''}"
            raise ConfigError(f"{path} has {count}, so there is no {path}.{beyond[0]}; give the whole list")
        if all(key.isdecimal() for key in items):
            pairs = [(item, items.get(str(index), item)) for index, item in enumerate(base)]
            return [merge(*pair, f"{path}.{index}", replaced) for index, pair in enumerate(pairs)]
    if not (isinstance(base, dict) and isinstance(layer, dict)) or (replaced and _REPLACED.fullmatch(path)):
        return layer
    if "kind" in layer and layer["kind"] != base.get("kind", layer["kind"]):
        return layer
    merged = {
        key: merge(base[key], value, f"{path}.{key}".lstrip("."), replaced) if key in base else value
        for key, value in layer.items()
    }
    return {**base, **merged}


T = TypeVar("T")


def build(config_type: type[T], layers: Sequence[Mapping[str, Any]]) -> T:
    """Merge layers over the defaults of a config dataclass -> a validated instance.

    A dataclass lists settings of earlier versions in `removed_settings`; they are dropped, as saved configs hold them.
    Its `moved` says how others are written now.
    Raises ConfigError for unknown keys (naming the nearest and all allowed), wrong types and values out of range.
    """
    tree = plain(reduce(merge, layers, defaults(config_type)))
    try:
        # As JSON, because only there does strict mode accept lists for tuples and strings for paths.
        built: T = _validator(cast(Any, config_type)).validate_json(to_json(hidden(tree)), strict=True, extra="forbid")
        return built if "\\udc" not in json.dumps(tree) else cast(T, restored(built))
    except ValidationError as error:
        from jepa.config.findings import explained  # of no use without an error

        findings = error.errors(include_url=False)
        # An unknown key is the likely cause of other errors, so it is reported first.
        unknown = next((one["loc"] for one in findings if one["type"] == "unexpected_keyword_argument"), None)
        if unknown is None:
            raise ConfigError(explained(findings, tree)) from error
        _drop_removed(config_type, tree, unknown)
    return build(config_type, [tree])


@lru_cache
def _validator(config_type: Any) -> TypeAdapter[Any]:
    """The validator of a type; making one takes a tenth of a second."""
    return TypeAdapter(config_type)


def defaults(config_type: Any) -> Tree:
    """Defaults of a config dataclass as plain data; keys without a default are left out."""
    hints, tree = type_hints(config_type), Tree()
    for field in dataclasses.fields(get_origin(config_type) or config_type):
        if field.default is not dataclasses.MISSING:
            tree[field.name] = plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            tree[field.name] = plain(field.default_factory())
        elif is_dataclass(hints[field.name]):
            tree[field.name] = defaults(hints[field.name])
    return tree


def _drop_removed(config_type: Any, tree: Tree, location: "Location") -> None:
    """Delete an unknown key from the tree if its section lists it as removed; raises ConfigError if not."""
    from jepa.config.findings import path_of

    path, key = path_of(tree, location[:-1]), str(location[-1])
    sections = _sections(config_type, location[:-1])
    if any(key in getattr(section, "removed_settings", ()) for section in sections):
        del reduce(getitem, path, tree)[key]  # type: ignore[arg-type]
        return
    for section in sections:
        if now := getattr(section, "moved", lambda setting, tree: "")(key, tree):
            raise ConfigError(f"'{key}' has become part of other settings: write {now}; see docs/settings.md")
    allowed = list(dict.fromkeys(name for section in sections for name in type_hints(section)))
    near = difflib.get_close_matches(key, allowed, n=1)
    prefix = "".join(f"{part}." for part in path)
    if not path and not near:
        owners = (name for name in allowed for part in _sections(config_type, (name,)) if key in type_hints(part))
        near = [f"{name}.{key}" for name in owners][:1]
    hint = f", did you mean '{prefix}{near[0]}'?" if near else "."
    kind = reduce(getitem, path, tree).get("kind")  # type: ignore[arg-type]
    of_kind = f" of kind {kind}" if isinstance(kind, str) and "kind" in allowed else ""
    owner = f"'{prefix[:-1]}'{of_kind}" if path else "The config"
    raise ConfigError(f"unknown key '{prefix}{key}'{hint} {owner} takes: {', '.join(allowed) or 'nothing'}")


def _sections(hint: Any, location: "Location") -> list[Any]:
    """Config dataclasses that a location inside a type may refer to."""
    if not is_dataclass(hint):
        inside = location if is_union(hint) else location[1:]  # without the index or key
        return [section for part in get_args(hint) for section in _sections(part, inside)]
    if not location:
        return [hint]
    part, rest = location[0], location[1:]
    if part in (hints := type_hints(hint)):
        return _sections(hints[part], rest)
    return _sections(hint, rest) if part in (getattr(hint, "kind", part), hint.__name__) else []  # a union member


def is_union(hint: Any) -> bool:
    """Whether a type is a union."""
    return get_origin(hint) in (Union, UnionType)


def is_dataclass(hint: Any) -> bool:
    """Whether a type is a dataclass, perhaps a generic one with arguments."""
    return dataclasses.is_dataclass(get_origin(hint) or hint)


def type_hints(config_type: Any) -> dict[Any, Any]:
    """Types of the fields of a dataclass, type variables replaced."""
    origin = get_origin(config_type) or config_type
    variables = dict(zip(getattr(origin, "__parameters__", ()), get_args(config_type), strict=False))
    hints = get_type_hints(origin)
    return {field.name: variables.get(hints[field.name], hints[field.name]) for field in dataclasses.fields(origin)}


def plain(value: Any) -> Any:
    """A config as plain data that YAML and JSON can hold."""
    return to_jsonable_python(value, fallback=str)


def to_yaml(value: Any) -> str:
    """A config as YAML in the order of its fields."""
    return yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """The keys that differ between two trees, each with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    return [] if old == new else [f"{path} ({old} there, {new} now)"]
