"""YAML and overrides -> frozen, typed config; what is not understood is refused."""

import dataclasses
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from jepa.errors import UserError

Tree = dict[str, Any]  # nested plain data, as YAML gives it


class ConfigError(UserError, ValueError):
    """A config is not understood; its message says which key, what is wrong and what is allowed."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as in YAML 1.2, and a key may not stand twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"key '{key}' stands twice{_place(node)}")
        return super().construct_mapping(node, deep)


def _construct_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    number = float(node.value)
    return int(number) if number.is_integer() and "." not in node.value else number  # steps=1e4 is a whole number


_Loader.add_implicit_resolver(
    "!exponent", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_constructor("!exponent", _construct_number)


def _place(node: yaml.Node) -> str:
    return f" (line {node.start_mark.line + 1})"


def parse_yaml(text: str, where: str) -> Any:
    """YAML text -> plain data; raises ConfigError naming `where`."""
    try:
        return yaml.load(text, _Loader)
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
        raise ConfigError(f"{path} must hold a mapping of sections, but holds a {type(tree).__name__}")
    return tree


def parse_override(text: str) -> Tree:
    """`section.key=value` -> {section: {key: value}}."""
    path, equals, value = text.partition("=")
    if not equals or not all(path.split(".")):
        raise ConfigError(f"'{text}' is not of the form section.key=value")
    tree: Any = parse_yaml(value, f"the value of {path}")
    for key in reversed(path.split(".")):
        tree = {key: tree}
    return dict(tree)


def merge(base: Any, layer: Any) -> Any:
    """Lay one tree over another: mappings merge, everything else is replaced, `list.0` reaches into a list.

    A mapping whose `kind` changes starts anew, as other keys belong to the other kind: `kind` chooses among config
    classes and is no name for anything else.
    """
    if isinstance(base, list) and isinstance(layer, dict) and layer and all(_is_index(key, base) for key in layer):
        items = {int(key): value for key, value in layer.items()}
        return [merge(item, items[index]) if index in items else item for index, item in enumerate(base)]
    if not (isinstance(base, dict) and isinstance(layer, dict)):
        return layer
    if "kind" in layer and layer["kind"] != base.get("kind", layer["kind"]):
        return layer
    return {**base, **{key: merge(base[key], value) if key in base else value for key, value in layer.items()}}


def _is_index(key: Any, items: list[Any]) -> bool:
    return str(key).isdecimal() and int(key) < len(items)


T = TypeVar("T")
REQUIRED = object()


def build(config_type: type[T], layers: Sequence[Mapping[str, Any]]) -> T:
    """Defaults of a config dataclass, then each layer over them -> a validated instance.

    Raises ConfigError for unknown keys (naming the nearest and all allowed), wrong types and values out of range.
    """
    known = default_tree(config_type)
    tree: Any = _without_required(known)
    for layer in layers:
        tree = merge(tree, layer)
    try:
        config = TypeAdapter(config_type).validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        # An unknown key is the likelier cause of what else is wrong, so it is looked for first.
        _refuse_unknown(tree, known, "")
        raise ConfigError(_explain(error, tree)) from error
    _refuse_unknown(tree, plain(config), "")
    return config


def default_tree(config_type: Any) -> Tree:
    """Defaults of a config dataclass as plain data; REQUIRED stands for a key without a default."""
    origin = get_origin(config_type) or config_type
    variables = dict(zip(getattr(origin, "__parameters__", ()), get_args(config_type), strict=False))
    hints = get_type_hints(origin, include_extras=True)
    tree: Tree = {}
    for field in dataclasses.fields(origin):
        hint = variables.get(hints[field.name], hints[field.name])
        if field.default is not dataclasses.MISSING:
            tree[field.name] = plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            tree[field.name] = plain(field.default_factory())
        else:
            tree[field.name] = default_tree(hint) if dataclasses.is_dataclass(get_origin(hint) or hint) else REQUIRED
    return tree


def _without_required(tree: Tree) -> Tree:
    kept = {key: value for key, value in tree.items() if value is not REQUIRED}
    return {key: _without_required(value) if isinstance(value, dict) else value for key, value in kept.items()}


def plain(value: Any) -> Any:
    """A config as plain data that YAML and JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def to_yaml(value: Any) -> str:
    """A config as YAML in the order of its fields."""
    return yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Keys on which two trees differ, each with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    return [] if old == new else [f"{path} ({old} there, {new} now)"]


def _refuse_unknown(given: Any, known: Any, path: str) -> None:
    if isinstance(given, list) and isinstance(known, list):
        for index, (inner, allowed) in enumerate(zip(given, known, strict=False)):
            _refuse_unknown(inner, allowed, f"{path}.{index}")
    if not (isinstance(given, dict) and isinstance(known, dict)) or given.get("kind") != known.get("kind"):
        return
    for key, value in given.items():
        if key in known:
            _refuse_unknown(value, known[key], f"{path}.{key}")
        else:
            section = path.lstrip(".")
            near = difflib.get_close_matches(str(key), list(known), n=1)
            hint = f", did you mean '{_join(section, near[0])}'?" if near else ""
            owner = f"'{section}'" if section else "the config"
            raise ConfigError(
                f"unknown key '{_join(section, key)}'{hint or '.'} {owner} takes: {', '.join(known) or 'nothing'}"
            )


def _join(section: str, key: str) -> str:
    return f"{section}.{key}" if section else str(key)


def _explain(error: ValidationError, tree: Any) -> str:
    """Pydantic's findings as one sentence a key."""
    findings: dict[str, list[str]] = {}
    for finding in error.errors(include_url=False):
        path: list[str] = []
        node = tree
        for part in finding["loc"]:
            if _holds(node, part):
                node = node[part]
            elif not (finding["type"] == "missing" and part == finding["loc"][-1]):
                continue  # the name of a member of a union, which is no key
            path.append(str(part))
        message = finding["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        shown = "" if finding["type"] in ("missing", "value_error") else f", not {finding['input']!r}"
        findings.setdefault(".".join(path), []).append(message.removeprefix("input ") + shown)
    return "; ".join(f"{path}: {', or '.join(dict.fromkeys(messages))}" for path, messages in findings.items())


def _holds(node: Any, part: str | int) -> bool:
    return part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
