"""Modality names -> classes: entry points of installed packages, or `package.module:Class` for any other."""

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
    """No class is to be had under that name; the message says why, and which names there are."""


@dataclass(frozen=True)
class Installed:
    """A modality that a package declares. value: module and class; place: its file, "" where it cannot be had."""

    name: str
    value: str
    package: str
    place: str = ""
    failure: str = ""


def modality_class(name: str) -> type[Modality[Any]]:
    """The class of a name, or of `package.module:Class`; raises UnknownModalityError, saying why there is none."""
    if ":" in name:
        return _loaded(f"modality '{name}'", name)
    entries = [entry for entry in _declared() if entry.name == name]
    if len(entries) > 1:
        raise UnknownModalityError(_clash(entries))
    if not entries:
        raise UnknownModalityError(
            f"no modality '{name}'; installed: {', '.join(names()) or 'none (run: pip install -e .)'}. One that is not "
            f'installed is named by package.module:Class; a package declares one under [project.entry-points."{GROUP}"]'
        )
    return _loaded(f"modality '{name}' of {_package(entries[0])}", entries[0].value)


def names() -> list[str]:
    """All names that installed packages declare; importing nothing."""
    return sorted({entry.name for entry in _declared()})


def declared_name(name: str) -> str:
    """The name under which a package declares a `package.module:Class`, or what is given where none does."""
    return next((entry.name for entry in _declared() if entry.value == name), name)


def installed() -> list[Installed]:
    """Everything that is declared, by name; what cannot be used says why, and keeps nothing else from being listed."""
    return [_tried(entry) for entry in sorted(_declared(), key=lambda entry: (entry.name, _package(entry)))]


def class_flaw(found: Any) -> str:
    """What keeps an object from being the class of a modality, as the end of a sentence that starts with its name."""
    if not (isinstance(found, type) and issubclass(found, Modality)):
        return "is no class derived from jepa.modality.Modality"
    version = getattr(found, "contract", None)
    if version is None:
        return f"does not say which version of the contract it was written for; write `contract = {CONTRACT}` into it"
    if version != CONTRACT:
        newer = isinstance(version, int) and version > CONTRACT
        what = "a newer openjepa" if newer else "a newer version of its package"
        return f"was written for version {version} of the contract, and this is version {CONTRACT}; install {what}"
    if lacking := sorted(getattr(found, "__abstractmethods__", ())):
        return f"lacks {' and '.join(lacking)}"
    config_type = getattr(found, "config_type", None)
    if not (isinstance(config_type, type) and issubclass(config_type, DataConfig)):
        return "needs `config_type`, a dataclass derived from jepa.modality.DataConfig"
    if plain := [
        one.__name__ for one in config_type.__mro__ if _declares(one) and "__dataclass_fields__" not in vars(one)
    ]:
        return f"has a config whose settings are not known: write @dataclass(frozen=True, kw_only=True) over {plain[0]}"
    return ""


def _declared() -> Sequence[EntryPoint]:
    return tuple(entry_points(group=GROUP))


def _declares(part: type) -> bool:
    return issubclass(part, DataConfig) and bool(vars(part).get("__annotations__"))


def _loaded(what: str, value: str) -> type[Modality[Any]]:
    try:
        found = imported(value)
    except ValueError as error:
        raise UnknownModalityError(f"{what}: {error}") from error
    if flaw := class_flaw(found):
        raise UnknownModalityError(f"{what}: {value} {flaw}")
    modality_type: type[Modality[Any]] = found
    return modality_type


def _tried(entry: EntryPoint) -> Installed:
    try:
        found = modality_class(entry.name)
    except UnknownModalityError as error:
        return Installed(entry.name, entry.value, _package(entry), failure=str(error))
    return Installed(entry.name, entry.value, _package(entry), place=str(sys.modules[found.__module__].__file__))


def _clash(entries: Sequence[EntryPoint]) -> str:
    every = [f"{_package(entry)} ({entry.value})" for entry in entries]
    return (
        f"modality '{entries[0].name}' is declared by {' and by '.join(every)}; uninstall all but one, "
        "or name the class, as in --modality package.module:Class"
    )


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown package"
