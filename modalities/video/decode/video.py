"""Encoded videos, decoded by decord, PyAV or torchcodec to the same upright frames."""

import importlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
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

# By CPU time per clip, see benchmarks/results/video_loader.md; `auto` takes the first that can be imported.
_FASTEST_FIRST: tuple[Decoder, ...] = ("torchcodec", "pyav", "decord")
_REMEDIES: dict[Decoder, str] = {
    "decord": "pip install decord (x86 only; PyAV reads the same files)",
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

    info: VideoInfo

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo; `indices` are valid."""
        ...

    def close(self) -> None:
        """Release files and memory."""
        ...


@dataclass(frozen=True, eq=False)
class EncodedVideo(StoredVideo):
    """A video file, or its bytes; each access opens and closes it.

    source: path, or contents of the file; name: its name in messages, by default the path; decoder: the library.

    The number of frames is what the packets state. If a wanted frame cannot be decoded, because the file is damaged or
    cut off, the sample is bad; no frame is replaced by a copy of another.
    """

    source: Path | bytes = field(repr=False)
    name: str = ""
    decoder: Decoder = "auto"

    @property
    def info(self) -> VideoInfo:
        """Facts of the video; the frame rate is taken from the times of its frames if possible."""
        failures: list[Exception] = []
        with closing(self._readers(failures)) as readers:
            for reader in readers:
                return reader.info
        raise self._bad_sample(failures)

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo, decoded from the nearest key frames and reduced by the decoder."""
        return self.clip(lambda _: indices, short_side)

    def clip(self, choose: Callable[[VideoInfo], Sequence[int]], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo; the file is opened once."""
        failures: list[Exception] = []
        with closing(self._readers(failures)) as readers:
            for reader in readers:
                indices = list(choose(reader.info))
                check_indices(indices, reader.info.frames)
                if not indices:
                    return torch.empty(0, 3, reader.info.height, reader.info.width, dtype=torch.uint8)
                try:
                    return reader.read(indices, short_side)
                except Exception as error:  # as in _readers
                    failures.append(error)
        raise self._bad_sample(failures)

    def _readers(self, failures: list[Exception]) -> Generator[Reader, None, None]:
        """The file opened by one decoder after another while the caller asks for more; collects failures."""
        with _openable(self.source) as source:
            for decoder in usable_decoders(self.decoder):
                try:
                    _check_not_empty(source)
                    reader = _open(source, decoder)
                except Exception as error:  # Decoders raise nearly any type for a broken file.
                    failures.append(error)
                    continue
                try:
                    yield reader
                finally:
                    reader.close()

    def _bad_sample(self, failures: list[Exception]) -> BadSampleError:
        name = self.name or (str(self.source) if isinstance(self.source, Path) else "video in memory")
        bad = BadSampleError(name, "; ".join(dict.fromkeys(map(_reason, failures))))
        bad.__cause__ = failures[-1]
        return bad


def usable_decoders(decoder: Decoder) -> tuple[Decoder, ...]:
    """The decoder itself; for `auto`, all that can be imported, fastest first. Raises ValueError if there is none.

    With `auto`, PyAV tries files that torchcodec cannot read, such as FLV. decord is used only if PyAV is missing: a
    damaged file may crash it, and it reads no file that PyAV cannot.
    """
    if decoder != "auto":
        if missing := _missing(decoder):
            raise ValueError(f"decoder '{decoder}' cannot be imported: {missing}. To install it: {_REMEDIES[decoder]}")
        return (decoder,)
    usable = tuple(candidate for candidate in _FASTEST_FIRST if not _missing(candidate))
    if not usable:
        reasons = "; ".join(f"{candidate}: {_missing(candidate)}" for candidate in _FASTEST_FIRST)
        raise ValueError(f"no video decoder can be imported ({reasons}). The simplest: {_REMEDIES['pyav']}")
    return tuple(one for one in usable if one != "decord" or "pyav" not in usable)


@cache
def _missing(decoder: Decoder) -> str:
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


def _open(source: Path | bytes, decoder: Decoder) -> Reader:
    match decoder:
        case "decord":
            from modalities.video.decode.decord_ import DecordReader

            return DecordReader(source)
        case "torchcodec":
            from modalities.video.decode.torchcodec_ import TorchcodecReader

            return TorchcodecReader(source)
        case _:
            from modalities.video.decode.pyav_ import PyavReader

            return PyavReader(source)


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
