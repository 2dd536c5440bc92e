"""Folders of shards: which are removed, and their metadata, which is read without executing anything."""

import io
import pickle
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

from jepa.checkpoint import latest, shards
from jepa.checkpoint.file import remove_other_shards


class _EarlyPython(pickle.Pickler):
    """Pickles members of enums as Python 3.11.0 to 3.11.3 does, by `getattr`."""

    def reducer_override(self, value: Any) -> Any:
        return (getattr, (type(value), value.name)) if isinstance(value, Enum) else NotImplemented


class _Call:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def read(file: io.BytesIO) -> Any:
    file.seek(0)
    return shards._MetadataUnpickler(file).load()


@pytest.mark.parametrize("pickler", [pickle.Pickler, _EarlyPython])
def test_metadata_is_read_whichever_python_wrote_it(pickler: type[pickle.Pickler]) -> None:
    file, members = io.BytesIO(), list(_MEM_FORMAT_ENCODING)
    pickler(file).dump(members)
    assert read(file) == members


def test_only_folders_named_by_a_step_are_removed_beside_the_latest_checkpoint(tmp_path: Path) -> None:
    folder = latest(tmp_path).parent
    for name in ("step_4", "step_6", "step_8.pt", "step_4_copy"):
        (folder / name).mkdir(parents=True)
    for name in ("step_2.pt.partial", "step_4.pt.bak"):
        (folder / name).touch()
    latest(tmp_path).symlink_to(folder / "step_6")
    remove_other_shards(tmp_path)
    kept = {"latest.pt", "step_6", "step_4_copy", "step_2.pt.partial", "step_4.pt.bak"}
    assert {path.name for path in folder.iterdir()} == kept


def test_metadata_cannot_reach_other_attributes() -> None:
    file = io.BytesIO()
    pickle.Pickler(file).dump(_Call(getattr, Path, "unlink"))
    with pytest.raises(pickle.UnpicklingError, match="getattr is not allowed"):
        read(file)
