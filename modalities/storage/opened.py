"""A cache of what a modality has opened: no folder is listed twice, and no table read twice."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Opened:
    """Opened sources by key. A pickled copy is empty, as processes that load samples open nothing."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}

    def __reduce__(self) -> tuple[type["Opened"], tuple[()]]:
        return Opened, ()

    def once(self, key: Hashable, open_it: Callable[[], T]) -> T:
        """What `open_it` returned on the first call with this key."""
        if key not in self._found:
            self._found[key] = open_it()
        found: T = self._found[key]
        return found
