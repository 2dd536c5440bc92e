"""The official code of I-JEPA, V-JEPA and V-JEPA 2, from checkouts in the folder that JEPA_OFFICIAL_CODE names."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

FOLDER = os.environ.get("JEPA_OFFICIAL_CODE", "")
needs_official_code = pytest.mark.skipif(
    not FOLDER, reason="JEPA_OFFICIAL_CODE names no folder with checkouts ijepa/, jepa/ and vjepa2/"
)


@contextmanager
def official(checkout: str) -> Iterator[Callable[[str], Any]]:
    """Import modules of a checkout; all of them call their package `src`, so it is forgotten afterwards."""
    path = str(Path(FOLDER) / checkout)
    sys.path.insert(0, path)
    try:
        yield import_module
    finally:
        sys.path.remove(path)
        for name in [name for name in sys.modules if name == "src" or name.startswith("src.")]:
            del sys.modules[name]
