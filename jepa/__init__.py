"""Self-supervised pretraining by prediction in representation space, for any modality."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa.embedding.arrays import embed
    from jepa.weights.opened import load, load_modality

# A thread that waits for others gives its core to other programs sooner than by default, so steps on busy cores take
# less time (benchmarks/threads.py). libgomp reads this when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__all__ = ["embed", "load", "load_modality"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use: importing torch takes seconds, and `jepa --help` does not need it."""
    if name not in __all__:
        raise AttributeError(f"module 'jepa' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module("jepa.embedding.arrays" if name == "embed" else "jepa.weights.opened"), name)
