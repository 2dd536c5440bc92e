"""Tensors that are spread over processes <-> a folder of files (torch.distributed.checkpoint), read by any number."""

import pickle
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

_METADATA = ".metadata"
# What the table of contents of a folder is made of; nothing else in it is ever executed.
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
    """A folder cannot be read or written."""


class _Contents(pickle.Unpickler):
    """Reads a table of contents, and refuses what has no place in one."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")
        return super().find_class(module, name)


class _Reader(FileSystemReader):
    """Reads a folder without executing anything in it."""

    def read_metadata(self, *args: Any, **options: Any) -> Metadata:
        with (Path(self.path) / _METADATA).open("rb") as file:
            metadata = _contents(file)
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def _contents(file: IO[bytes]) -> Metadata:
    metadata: Metadata = _Contents(file).load()
    if not all(isinstance(entry, TensorStorageMetadata) for entry in metadata.state_dict_metadata.values()):
        raise pickle.UnpicklingError("there is something other than tensors in it")
    return metadata


def start_writing(tensors: Mapping[str, Tensor], folder: Path, group: dist.ProcessGroup) -> Future[Any]:
    """Copy the tensors, and write the copies in the background; all processes of the group (gloo) must call.

    The future is done in the first process once every process has written.
    """
    writer = FileSystemWriter(folder, sync_files=True)
    started = async_save(dict(tensors), storage_writer=writer, process_group=group)
    assert isinstance(started, Future)
    return started


def finish_writing(started: Future[Any]) -> None:
    """Wait until it is written; raises ShardsError where a process could not."""
    try:
        started.result()
    except CheckpointException as error:  # not an Exception for torch, but a full disk is one for us
        raise ShardsError(reason(error)) from error


def names(folder: Path) -> set[str]:
    """Of all tensors of a folder."""
    return set(_Reader(folder).read_metadata().state_dict_metadata)


def read_into(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Fill tensors, or this process's shards of them; all processes must call, and all raise what one of them meets."""
    _load(tensors, _Reader(folder), alone=False)


def read_all(folder: Path, device: torch.device | str) -> dict[str, Tensor]:
    """Every tensor of a folder in one piece, by one process alone."""
    reader = _Reader(folder)
    entries = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Tensor] = {}
    for name, entry in entries.items():
        assert isinstance(entry, TensorStorageMetadata)
        tensors[name] = torch.empty(entry.size, dtype=entry.properties.dtype, device=device)
    _load(tensors, reader, alone=True)
    return tensors


def _load(tensors: Mapping[str, Tensor], reader: _Reader, alone: bool) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*in a single process")
        try:
            load(dict(tensors), storage_reader=reader, no_dist=alone)
        except CheckpointException as error:
            raise ShardsError(reason(error)) from error


def reason(error: CheckpointException) -> str:
    """What went wrong, in the first process where something did."""
    rank, (failure, _) = min(error.failures.items())
    return f"process {rank} met {type(failure).__name__} {failure}".strip()
