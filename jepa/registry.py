"""Modality names -> classes: a decorator, and Python entry points for those of other packages."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from jepa.modality import Modality

GROUP = "jepa.modalities"
M = TypeVar("M", bound=type[Modality[Any]])


class UnknownModalityError(LookupError):
    """No class is to be had under that name; the message says why, and which names there are."""


class Registry:
    """Classes by name; a name that is not known yet is looked for among the entry points of installed packages."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Modality[Any]]] = {}

    def register(self, name: str) -> Callable[[M], M]:
        """Decorate a modality class to be found under `name`; raises ValueError where another class has it."""

        def add(cls: M) -> M:
            taken = self._classes.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(f"two modalities are called '{name}': {_place(taken)} and {_place(cls)}")
            self._classes[name] = cls
            return cls

        return add

    def get(self, name: str) -> type[Modality[Any]]:
        """The class called `name`; raises UnknownModalityError with the names there are."""
        if name not in self._classes:
            declared = {entry.name: entry for entry in entry_points(group=GROUP)}
            if name in declared:
                self._load(declared[name])
        if name not in self._classes:
            raise UnknownModalityError(
                f"no modality '{name}'; installed: {', '.join(self.names()) or 'none (run: pip install -e .)'}. "
                f'A package declares one under [project.entry-points."{GROUP}"]'
            )
        return self._classes[name]

    def names(self) -> list[str]:
        """All names there are; importing nothing."""
        return sorted({*self._classes, *(entry.name for entry in entry_points(group=GROUP))})

    def _load(self, entry: EntryPoint) -> None:
        try:
            entry.load()
        except ImportError as error:
            raise UnknownModalityError(
                f"modality '{entry.name}' ({entry.value}) cannot be imported: {error}"
            ) from error
        if entry.name not in self._classes:
            raise UnknownModalityError(
                f"entry point '{entry.name} = {entry.value}' registers no modality of that name; "
                f'decorate its class with @MODALITIES.register("{entry.name}")'
            )


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


MODALITIES = Registry()
