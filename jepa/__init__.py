"""Self-supervised pretraining by prediction in representation space, for any modality."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa.weights.opened import load, load_modality

__all__ = ["load", "load_modality"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use: importing torch takes seconds, and `jepa --help` does not need it."""
    if name not in __all__:
        raise AttributeError(f"module 'jepa' has no attribute '{name}'")
    from jepa.weights import opened

    return getattr(opened, name)
