"""Modality names -> classes: entry points of installed packages, or `package.module:Class` for any other class."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from jepa.config.imports import imported
from jepa.errors import UserError
from jepa.modality import CONTRACT, DataConfig, Modality

GROUP = "jepa.modalities"


class UnknownModalityError(UserError, LookupError):
    """No modality can be loaded by that name; the message gives the reason."""


@dataclass(frozen=True)
class InstalledModality:
    """A modality that an installed package declares.

    value: module and class. file: path of the module, empty if the class cannot be loaded. error: why it cannot.
    """

    name: str
    value: str
    package: str
    file: str = ""
    error: str = ""


def modality_class(name: str) -> type[Modality[Any]]:
    """The class of an installed modality, or of `package.module:Class`; raises UnknownModalityError."""
    if ":" in name:
        return _load(f"modality '{name}'", name)
    entries = [entry for entry in _entries() if entry.name == name]
    if len(entries) > 1:
        packages = [f"{_package(entry)} ({entry.value})" for entry in entries]
        raise UnknownModalityError(
            f"modality '{name}' is declared by {' and by '.join(packages)}; uninstall all but one, "
            "or name the class, as in --modality package.module:Class"
        )
    if not entries:
        raise UnknownModalityError(
            f"no modality '{name}'; installed: {', '.join(names()) or 'none (run: pip install -e .)'}. A class that is "
            "not installed is named package.module:Class; a package declares a modality under "
            f'[project.entry-points."{GROUP}"]'
        )
    return _load(f"modality '{name}' of {_package(entries[0])}", entries[0].value)


def names() -> list[str]:
    """Names of all installed modalities; imports none of them."""
    return sorted({entry.name for entry in _entries()})


def declared_name(name: str) -> str:
    """The name under which a package declares a `package.module:Class`; any other name is returned unchanged."""
    return next((entry.name for entry in _entries() if entry.value == name), name)


def installed() -> list[InstalledModality]:
    """All installed modalities by name, also those that cannot be loaded."""
    return [_loaded(entry) for entry in sorted(_entries(), key=lambda entry: (entry.name, _package(entry)))]


def class_flaw(found: Any) -> str:
    """Why an object is not a valid modality class: a sentence without its subject; empty if it is valid."""
    if not (isinstance(found, type) and issubclass(found, Modality)):
        return "is not a subclass of jepa.modality.Modality"
    version = getattr(found, "contract", None)
    if version is None:
        return f"has no contract version; write `contract = {CONTRACT}` in the class"
    if version != CONTRACT:
        newer = isinstance(version, int) and version > CONTRACT
        what = "a newer openjepa" if newer else "a newer version of its package"
        return f"was written for version {version} of the contract, and this is version {CONTRACT}; install {what}"
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        return f"does not define {' and '.join(missing)}"
    config_type = getattr(found, "config_type", None)
    if not (isinstance(config_type, type) and issubclass(config_type, DataConfig)):
        return "needs `config_type`, a dataclass derived from jepa.modality.DataConfig"
    for one in config_type.__mro__:
        has_settings = issubclass(one, DataConfig) and vars(one).get("__annotations__")
        if has_settings and "__dataclass_fields__" not in vars(one):
            return f"has a config that is no dataclass: write @dataclass(frozen=True, kw_only=True) over {one.__name__}"
    return ""


def _entries() -> Sequence[EntryPoint]:
    return tuple(entry_points(group=GROUP))


def _load(what: str, value: str) -> type[Modality[Any]]:
    try:
        found: type[Modality[Any]] = imported(value)
    except ValueError as error:
        raise UnknownModalityError(f"{what}: {error}") from error
    if flaw := class_flaw(found):
        raise UnknownModalityError(f"{what}: {value} {flaw}")
    return found


def _loaded(entry: EntryPoint) -> InstalledModality:
    try:
        found = modality_class(entry.name)
    except UnknownModalityError as error:
        return InstalledModality(entry.name, entry.value, _package(entry), error=str(error))
    return InstalledModality(entry.name, entry.value, _package(entry), file=str(sys.modules[found.__module__].__file__))


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown package"
