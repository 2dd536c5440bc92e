"""`section.key=value` on a command line -> a layer of a config; the type of a setting decides how its value is read."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial, reduce
from pathlib import PurePath
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml

from jepa.config.build import ConfigError, Tree, is_dataclass, is_union, merge, parse_yaml, type_hints
from jepa.config.raw_bytes import hidden

_TEXT, _NUMBERS = (str, PurePath), (bool, int, float)


def parse_overrides(texts: Sequence[str], config_type: Any) -> Tree:
    """All overrides of a command line as one layer, so that their order does not matter if one changes a `kind`."""
    trees = (parse_override(text, config_type) for text in texts)
    return reduce(partial(merge, replaced=False), trees, {})


def as_tree(layers: Sequence[Tree | str], config_type: Any) -> Tree:
    """Layers, of which some are `section.key=value` texts, as one layer; the texts come last."""
    trees = [layer for layer in layers if not isinstance(layer, str)]
    texts = [layer for layer in layers if isinstance(layer, str)]
    return reduce(merge, [*trees, parse_overrides(texts, config_type)], {})


def as_texts(layers: Sequence[Tree | str]) -> list[str]:
    """Layers as `section.key=value` texts, which `as_tree` reads as the same layer."""
    trees = [layer for layer in layers if not isinstance(layer, str)]
    return [*(text for tree in trees for text in _leaves(tree)), *(one for one in layers if isinstance(one, str))]


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            text = "" if value is None else str(value) if isinstance(value, _TEXT) else json.dumps(value, default=str)
            yield f"{path}{key}={text}"


def parse_override(text: str, config_type: Any) -> Tree:
    """`section.key=value` -> {section: {key: value}}; `read_value` reads the value. Raises ConfigError."""
    path, equals, value = text.partition("=")
    if not equals or not all(path.split(".")) or not path.isprintable():
        raise ConfigError(f"'{text}' is not of the form section.key=value")
    tree = read_value(value, types_at(config_type, path.split(".")), path)
    for key in reversed(path.split(".")):
        tree = {key: tree}
    return dict(tree)


def read_value(text: str, types: Sequence[Any], path: str) -> Any:
    """The value that a text gives a setting of one of these types; path names it in errors.

    Text and paths are taken literally: quotes, `#`, `null` and spaces belong to them. Nothing at all is null where the
    setting may be null. A setting that also takes a mapping, a list or a number takes these as YAML: in braces, in
    brackets, or if the whole text is a number. Values of all other settings are YAML, without comments.
    """
    if not types:  # an unknown key, which `build` reports
        return _yaml_or_text(text, path)
    choices = [choice for one in types if get_origin(one) is Literal for choice in get_args(one)]
    if not text and NoneType in types:
        return None
    if text in choices:
        return text
    if not any(_is(one, *_TEXT) for one in types):
        return _yaml(text, path)
    if _is_braced(text, types):
        return _yaml(text, path)
    numbers = tuple(one for one in (*types, *map(type, choices)) if one in _NUMBERS)
    value = _yaml_or_text(text, path) if numbers else text
    return value if isinstance(value, numbers) and not _has_comment(text) else text


def read_values(text: str, types: Sequence[Any], path: str) -> list[Any]:
    """Values separated by commas, each read as by `read_value`; YAML decides which commas separate values of YAML."""
    has_braces = any(_is_braced(pair, types) for pair in ("{}", "[]") if pair[0] in text)
    if any(_is(one, *_TEXT) for one in types) and not has_braces:
        return [read_value(part, types, path) for part in text.split(",")]
    values: list[Any] = _yaml(f"[{text}]", path)
    return values


def types_at(hint: Any, keys: Sequence[str]) -> list[Any]:
    """The types that a type allows at a path of keys and indices, unions taken apart; none if there is no such path."""
    if is_union(hint):
        return [found for part in get_args(hint) for found in types_at(part, keys)]
    if not keys or hint is Any:
        return [hint]
    key, rest = keys[0], keys[1:]
    if is_dataclass(hint):
        hints = type_hints(hint)
        return types_at(hints[key], rest) if key in hints else []
    parts = get_args(hint) or (Any, ...)
    if _is(hint, Mapping):
        return types_at(parts[-1], rest) if parts[-1] is not ... else [Any]
    if not _is(hint, Sequence) or _is(hint, str) or not key.isdecimal():
        return []
    if parts[-1] is ... or not _is(hint, tuple):
        return types_at(parts[0], rest)
    return types_at(parts[int(key)], rest) if int(key) < len(parts) else []


def _is(hint: Any, *kinds: type) -> bool:
    origin = get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, kinds)


def _is_braced(text: str, types: Sequence[Any]) -> bool:
    """Whether a text is a mapping or a list in the notation of YAML, and a type takes one."""
    if text.startswith("{") and text.endswith("}"):
        return any(is_dataclass(one) or _is(one, Mapping) for one in types)
    brackets = text.startswith("[") and text.endswith("]")
    return brackets and any(_is(one, Sequence) and not _is(one, str) for one in types)


def _yaml(text: str, path: str) -> Any:
    value = parse_yaml(text, f"the value of {path}")
    if _has_comment(text):
        raise ConfigError(
            f"{path}: in '{text}' the '#' begins a YAML comment, so the text after it would be lost; "
            "put text that holds '#' in quotes"
        )
    return value


def _yaml_or_text(text: str, path: str) -> Any:
    try:
        return parse_yaml(text, path)
    except ConfigError:
        return text


def _has_comment(text: str) -> bool:
    """Whether valid YAML holds a comment: a # between its tokens."""
    end = 0
    text = hidden(text)
    for token in yaml.scan(text):
        if "#" in text[end : token.start_mark.index]:
            return True
        end = max(end, token.end_mark.index)
    return False
