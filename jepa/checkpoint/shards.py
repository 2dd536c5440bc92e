"""Save sharded tensors to a folder (torch.distributed.checkpoint), and read them with any number of processes."""

import pickle
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from enum import Enum, EnumType
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from jepa.disk import WriteError, writing

_METADATA = ".metadata"
# The types in a folder's metadata; unpickling refuses all others, so that nothing in a folder is executed.
_ALLOWED = {
    "builtins": {"dict", "list", "tuple", "set", "int", "str"},
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath", "_local"},
    "pathlib._local": {"Path", "PosixPath", "PurePosixPath"},
    "torch": {"Size", "device", "float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool"},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "TensorStorageMetadata", "ChunkStorageMetadata", "TensorProperties", "MetadataIndex"),
        *("StorageMeta", "_MEM_FORMAT_ENCODING", "BytesStorageMetadata"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "_StoragePrefix"},
}


class ShardsError(ValueError):
    """A folder of shards cannot be read or written."""


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):  # Python 3.11.0 to 3.11.3 pickle a member of an enum by it
            return _member
        if name not in _ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a checkpoint")
        return super().find_class(module, name)


def _member(kind: Any, name: str) -> Enum:
    """A member of an allowed enum, and no other attribute of anything."""
    if not isinstance(kind, EnumType):
        raise pickle.UnpicklingError("builtins.getattr is not allowed in a checkpoint")
    member: Enum = kind[name]
    return member


class _Reader(FileSystemReader):
    """Reads a folder without executing anything in it."""

    def read_metadata(self, *args: Any, **options: Any) -> Metadata:
        with (Path(self.path) / _METADATA).open("rb") as file:
            metadata: Metadata = _MetadataUnpickler(file).load()
        if not all(isinstance(entry, TensorStorageMetadata) for entry in metadata.state_dict_metadata.values()):
            raise pickle.UnpicklingError("it holds something other than tensors")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class Writer(FileSystemWriter):
    """Names the reason of the system, such as a full disk, which the errors of torch hide."""

    def write_data(self, *args: Any, **options: Any) -> Any:
        with writing(Path(self.path)):
            return super().write_data(*args, **options)

    def finish(self, *args: Any, **options: Any) -> None:
        with writing(Path(self.path)):
            super().finish(*args, **options)


def start_writing(tensors: Mapping[str, Tensor], folder: Path, group: dist.ProcessGroup) -> Future[Any]:
    """Copy the tensors and write the copies in the background; every process of the group (gloo) must call.

    On rank 0 the future is done once all processes have written.
    """
    writer = Writer(folder, sync_files=True)
    started = async_save(dict(tensors), storage_writer=writer, process_group=group)
    assert isinstance(started, Future)
    return started


def finish_writing(started: Future[Any]) -> None:
    """Wait for the writing to end; raises WriteError if a process could not write, ShardsError if one failed."""
    try:
        started.result()
    except CheckpointException as error:  # a BaseException in torch, although it may be just a full disk
        for failure, _ in error.failures.values():
            if isinstance(failure, WriteError):
                raise failure from error
        raise ShardsError(reason(error)) from error


def names(folder: Path) -> set[str]:
    return set(_Reader(folder).read_metadata().state_dict_metadata)


def read_into(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Fill tensors, or this process's shards of them. Every process must call; an error in one raises in all."""
    _load(tensors, _Reader(folder), single=False)


def read_all(folder: Path, device: torch.device | str, prefix: str = "") -> dict[str, Tensor]:
    """All tensors of a folder whose names start with a prefix, unsharded, read by a single process."""
    reader = _Reader(folder)
    entries = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Tensor] = {}
    for name, entry in entries.items():
        if not name.startswith(prefix):
            continue
        assert isinstance(entry, TensorStorageMetadata)
        tensors[name] = torch.empty(entry.size, dtype=entry.properties.dtype, device=device)
    _load(tensors, reader, single=True)
    return tensors


def _load(tensors: Mapping[str, Tensor], reader: _Reader, single: bool) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*in a single process")
        try:
            load(dict(tensors), storage_reader=reader, no_dist=single)
        except CheckpointException as error:
            raise ShardsError(reason(error)) from error


def reason(error: CheckpointException) -> str:
    """The error of the lowest rank that failed."""
    rank, (failure, _) = min(error.failures.items())
    return f"process {rank} failed with {type(failure).__name__} {failure}".strip()
