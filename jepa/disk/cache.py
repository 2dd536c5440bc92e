"""Where files that can be made again are kept from one command to the next."""

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """$XDG_CACHE_HOME/openjepa/`name`, by default ~/.cache/openjepa/`name`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openjepa" / name
