"""Files of safetensors that others may read."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write contiguous tensors with the rights of any new file: safetensors itself lets only the owner read it.

    Raises OSError, as on a full disk.
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(dict(tensors), path, dict(metadata))
    except SafetensorError as error:  # it has no errno
        if (found := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
    path.chmod(mode)
