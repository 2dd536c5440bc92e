"""Bytes of names that are not UTF-8, in YAML and JSON, which cannot hold them.

Python holds such a byte as half of a surrogate pair. Parsers refuse these, so they see characters for private use.
"""

import dataclasses
from pathlib import Path
from typing import Any

_HIDE = {code: 0x100000 + code for code in range(0xDC80, 0xDD00)}
_SHOW = {hidden: code for code, hidden in _HIDE.items()}


def hidden(value: Any) -> Any:
    """Plain data with such bytes as characters for private use."""
    return _translated(value, _HIDE)


def restored(value: Any) -> Any:
    """Inverse of `hidden`, also for the fields of frozen dataclasses and for paths."""
    return _translated(value, _SHOW)


def _translated(value: Any, table: dict[int, int]) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.translate(table)
    if isinstance(value, Path):
        return value if str(value).isascii() else Path(str(value).translate(table))
    if isinstance(value, dict):
        return {_translated(key, table): _translated(one, table) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_translated(one, table) for one in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            object.__setattr__(value, field.name, _translated(getattr(value, field.name), table))
    return value
