"""A cache of what a modality has opened: no folder is listed twice, and no table read twice."""

from collections.abc import Callable, Hashable
from typing import Any, Self, TypeVar

from jepa.disk.columns import IndexFolder
from modalities.storage.index import Request, SplitIndex, split_index
from modalities.storage.splits import StoredSplit

T = TypeVar("T")


class Opened:
    """Opened sources by key. A pickled copy is empty, as processes that load samples open nothing."""

    def __init__(self, index: IndexFolder | None = None) -> None:
        """index: where splits are stored from one start to the next."""
        self._index = index
        self._found: dict[Hashable, Any] = {}

    def __reduce__(self) -> tuple[type["Opened"], tuple[()]]:
        return Opened, ()

    def at(self, index: IndexFolder | None) -> Self:
        """The same, with the index at this place from now on."""
        self._index = index
        return self

    def once(self, key: Hashable, open_it: Callable[[], T]) -> T:
        """What `open_it` returned on the first call with this key."""
        if key not in self._found:
            self._found[key] = open_it()
        found: T = self._found[key]
        return found

    def indexed(self, request: Request, build: Callable[[], SplitIndex]) -> SplitIndex:
        """What the index holds of a split, or what `build` finds."""
        if self._index is not None and self._index.writes and self._forget not in self._index.on_close:
            self._index.on_close.append(self._forget)
        return split_index(self._index, request, build)

    def _forget(self) -> None:
        """Drop what several splits needed while they were opened."""
        self._found = {key: found for key, found in self._found.items() if isinstance(found, StoredSplit)}
