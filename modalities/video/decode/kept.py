"""What a process keeps of video files between clips: their indexes and, of long files, an open reader."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from modalities.video.decode.frame_index import FrameIndex
from modalities.video.decode.pyav_ import PyavReader
from modalities.video.decode.stored import VideoInfo

_INDEX_BYTES = 64 * 2**20
_READERS = 4
_LONG = 5_000  # packets from which on opening a file costs as much as reading a clip


class FileVersion(NamedTuple):
    """A file as it was when it was indexed."""

    path: Path
    size: int
    modified: int


class Kept:
    """Indexes and open readers by file; those used longest ago are dropped first."""

    def __init__(self) -> None:
        self._indexes: OrderedDict[FileVersion, FrameIndex] = OrderedDict()
        self._index_bytes = 0
        self._readers: OrderedDict[FileVersion, PyavReader] = OrderedDict()
        self._process = os.getpid()

    def take(self, version: FileVersion) -> PyavReader:
        """A reader of the file, which the caller gives back."""
        if self._process != os.getpid():  # a forked process shares the position in an open file with its parent
            self._readers, self._process = OrderedDict(), os.getpid()
        return self._readers.pop(version, None) or PyavReader(version.path, self._indexes.get(version))

    def index(self, version: FileVersion) -> FrameIndex | None:
        """The index of the file, if it is known."""
        return self._indexes.get(version)

    def give_back(self, version: FileVersion, reader: PyavReader) -> None:
        """Keep the index, and the reader of a long file."""
        self._keep_index(version, reader.index)
        if len(reader.index.packets) < _LONG:
            reader.close()
            return
        reader.rest()
        self._readers[version] = reader
        while len(self._readers) > _READERS:
            self._readers.popitem(last=False)[1].close()

    def _keep_index(self, version: FileVersion, index: FrameIndex) -> None:
        known = self._indexes.pop(version, None)
        self._indexes[version] = index
        self._index_bytes += index.nbytes - (known.nbytes if known else 0)
        while self._index_bytes > _INDEX_BYTES:
            self._index_bytes -= self._indexes.popitem(last=False)[1].nbytes


KEPT = Kept()


class KeptReader:
    """A video opened with PyAV; a file that was read before in this process is not indexed again."""

    def __init__(self, source: Path | bytes) -> None:
        self._version = _version(source)
        self._reader = KEPT.take(self._version) if self._version else PyavReader(source)

    @property
    def info(self) -> VideoInfo:
        """Facts of the video."""
        return self._reader.info

    @property
    def index(self) -> FrameIndex:
        """Index of the frames."""
        return self._reader.index

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        return self._reader.read(indices, short_side)

    def close(self) -> None:
        if self._version:
            KEPT.give_back(self._version, self._reader)
        else:
            self._reader.close()


def index_of(source: Path | bytes) -> FrameIndex:
    """The index of a video, for decoders that have none."""
    version = _version(source)
    if version and (known := KEPT.index(version)):
        return known
    with closing(KeptReader(source)) as reader:
        return reader.index


def _version(source: Path | bytes) -> FileVersion | None:
    if isinstance(source, bytes):
        return None
    status = source.stat()
    return FileVersion(source, status.st_size, status.st_mtime_ns)
