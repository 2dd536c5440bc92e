"""Encoded videos, decoded by decord, PyAV or torchcodec to the same upright frames."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Protocol

import torch
from torch import Tensor

from jepa.modality import BadSampleError
from modalities.video.decode.stored import StoredVideo, UnreadableError, VideoInfo, check_indices

Decoder = Literal["auto", "decord", "pyav", "torchcodec"]
UsedDecoder = Literal["decord", "pyav", "torchcodec"]

_REMEDIES: dict[UsedDecoder, str] = {
    "decord": "pip install decord (x86 only; pyav reads more kinds of files)",
    "pyav": "pip install 'av>=14'",
    "torchcodec": "pip install torchcodec in the version that fits torch, and install FFmpeg's shared libraries, "
    "versions 4 to 8 (apt install ffmpeg or conda install ffmpeg)",
}

# fmt: off
VIDEO_EXTENSIONS = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".gif", ".m1v", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".mxf", ".ogg", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on


class Reader(Protocol):
    """A video opened by one decoder; any exception means that the video cannot be read."""

    @property
    def info(self) -> VideoInfo:
        """The facts of the video."""
        ...

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo; `indices` are valid."""
        ...

    def close(self) -> None:
        """Release files and memory."""
        ...


@dataclass(frozen=True, eq=False)
class EncodedVideo(StoredVideo):
    """A video file, or its bytes.

    source: path, or contents of the file; name: its name in messages, by default the path; decoder: the library.

    Frames are numbered as a decode of the whole file gives them (decode.frame_index). If a wanted frame cannot be
    decoded, because the file is damaged or cut off, the sample is bad; no frame is replaced by a copy of another.
    """

    source: Path | bytes = field(repr=False)
    name: str = ""
    decoder: Decoder = "auto"

    @property
    def stored_bytes(self) -> int:
        """Bytes of the file, 0 if it cannot be found."""
        if isinstance(self.source, bytes):
            return len(self.source)
        return self.source.stat().st_size if self.source.is_file() else 0

    @property
    def info(self) -> VideoInfo:
        """Facts of the video; the frame rate is taken from the times of its frames if possible."""
        with self._opened() as reader:
            return reader.info

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo, decoded from the nearest key frames and reduced by the decoder."""
        return self.clip(lambda _: indices, short_side)

    def clip(self, choose: Callable[[VideoInfo], Sequence[int]], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo; the file is opened once."""
        with self._opened() as reader:
            indices = list(choose(reader.info))
            check_indices(indices, reader.info.frames)
            if not indices:
                return torch.empty(0, 3, reader.info.height, reader.info.width, dtype=torch.uint8)
            try:
                return reader.read(indices, short_side)
            except Exception as error:  # Decoders raise nearly any type for a broken file.
                raise self._bad_sample(error) from error

    @contextmanager
    def _opened(self) -> Iterator[Reader]:
        decoder = usable_decoder(self.decoder)
        with ExitStack() as stack:
            try:
                _check_not_empty(self.source)
                source = self.source if decoder == "pyav" else stack.enter_context(_openable(self.source))
                reader = stack.enter_context(closing(_open(source, decoder)))
            except Exception as error:  # as in `clip`
                raise self._bad_sample(error) from error
            yield reader

    def _bad_sample(self, error: Exception) -> BadSampleError:
        name = self.name or (str(self.source) if isinstance(self.source, Path) else "video in memory")
        return BadSampleError(name, _reason(error))


def usable_decoder(decoder: Decoder) -> UsedDecoder:
    """The decoder itself; for `auto` PyAV, whose frames are checked. Raises ValueError if it cannot be imported."""
    used: UsedDecoder = "pyav" if decoder == "auto" else decoder
    for needed in dict.fromkeys((used, "pyav")):  # PyAV counts the frames for the others
        if missing := _missing(needed):
            raise ValueError(f"decoder '{needed}' cannot be imported: {missing}. To install it: {_REMEDIES[needed]}")
    return used


@cache
def _missing(decoder: UsedDecoder) -> str:
    """Why a decoder cannot be imported, "" if it can."""
    try:
        importlib.import_module(f"modalities.video.decode.{decoder}_")
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError if FFmpeg's libraries are not found
        return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")
    return ""


@contextmanager
def _openable(source: Path | bytes) -> Iterator[Path | bytes]:
    """The source, or a temporary link to a file whose name is not UTF-8: decord and torchcodec cannot open those."""
    try:
        str(source if isinstance(source, Path) else "").encode()
    except UnicodeEncodeError:
        with TemporaryDirectory(prefix="video-") as folder:
            link = Path(folder, "link")
            link.symlink_to(Path(source).absolute())  # type: ignore[arg-type]
            yield link
    else:
        yield source


def _open(source: Path | bytes, decoder: UsedDecoder) -> Reader:
    from modalities.video.decode.kept import KeptReader, index_of

    if decoder == "pyav":
        return KeptReader(source)
    index = index_of(source)
    if index.unusual:
        raise UnreadableError(f"{decoder} may give wrong frames, because {index.unusual}; data.decoder=pyav reads it")
    if decoder == "decord":
        from modalities.video.decode.decord_ import DecordReader

        return DecordReader(source, index)
    from modalities.video.decode.torchcodec_ import TorchcodecReader

    return TorchcodecReader(source, index)


def _check_not_empty(source: Path | bytes) -> None:
    if not (len(source) if isinstance(source, bytes) else source.stat().st_size):
        raise UnreadableError("the file is empty")
    if isinstance(source, Path):
        source.open("rb").close()  # decoders do not report missing permissions


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and type(error).__module__ == "builtins":
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[-1][:200] if lines else type(error).__name__
