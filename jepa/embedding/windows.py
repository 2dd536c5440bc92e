"""What a modality needs for windows that slide along its samples."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class WindowedModality(Protocol):
    """A modality whose samples extend in time. A window is given by its start and end in seconds."""

    def windows(self, inputs: Any, length: float, stride: float, unit: str) -> Sequence[tuple[float, float]]:
        """Start and end of each window of stored inputs; the last one ends with them.

        length, stride: in seconds, or in frames if `unit` is `f`. Shorter inputs give one window. Raises
        BadSampleError.
        """
        ...

    def window_view(self, inputs: Any, start: float, end: float) -> Any:
        """The evaluation view of a window; raises BadSampleError."""
        ...
