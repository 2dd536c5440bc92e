"""One encoded video to frames, by decord, PyAV or torchcodec: the same upright pictures by each."""

import importlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from jepa.modality import BadSampleError
from modalities.video.stored import StoredVideo, UnreadableError, VideoInfo, check_indices

Decoder = Literal["auto", "decord", "pyav", "torchcodec"]

# `auto` takes the first that loads: by CPU time a clip, see benchmarks/results/video_loader.md.
_FASTEST_FIRST: tuple[Decoder, ...] = ("torchcodec", "pyav", "decord")
_REMEDIES: dict[Decoder, str] = {
    "decord": "pip install decord; it has no wheel for ARM, where PyAV does the same",
    "pyav": "pip install 'av>=14'",
    "torchcodec": "pip install torchcodec in the version that fits torch, and FFmpeg's shared libraries (versions 4 to "
    "8, as from apt install ffmpeg or conda install ffmpeg), which it does not bring along",
}

# fmt: off
VIDEO_EXTENSIONS = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".gif", ".m1v", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".mxf", ".ogg", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on


class Reader(Protocol):
    """An opened video of one decoder; any exception of it means that the video cannot be read."""

    info: VideoInfo

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo; `indices` have been checked."""
        ...

    def close(self) -> None:
        """Give back files and memory."""
        ...


@dataclass(frozen=True, eq=False)
class EncodedVideo(StoredVideo):
    """A video file, or its bytes, that is opened for each question and closed after it.

    source: a path, or the whole file; name: what messages call it, by default the path; decoder: which library.

    A video has as many frames as its packets promise. A frame that is asked for and does not decode, in a file that is
    cut off or damaged, makes the sample bad: no frame is repeated in place of another.
    """

    source: Path | bytes = field(repr=False)
    name: str = ""
    decoder: Decoder = "auto"

    @property
    def info(self) -> VideoInfo:
        """The facts of the video; a mean rate that the file does not tell comes from the times of its frames."""
        failures: list[Exception] = []
        with closing(self._readers(failures)) as readers:
            for reader in readers:
                return reader.info
        raise self._bad_sample(failures)

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo, decoded from the nearest key frames on and reduced by the decoder."""
        return self.clip(lambda _: indices, short_side)

    def clip(self, choose: Callable[[VideoInfo], Sequence[int]], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo, by one opening."""
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
        """The file opened by one decoder after the other, as long as more are asked for; what fails is noted."""
        for decoder in usable_decoders(self.decoder):
            try:
                _check_not_empty(self.source)
                reader = _open(self.source, decoder)
            except Exception as error:  # Broken files raise nearly any type; nothing is swallowed, all is passed on.
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
    """The decoder itself, or those that load for `auto`, the fastest first; ValueError says what is missing.

    With `auto`, what torchcodec cannot read, such as FLV, is tried with PyAV. decord, which a damaged file may crash,
    is used only where PyAV is not installed: it reads nothing that PyAV does not.
    """
    if decoder != "auto":
        if missing := _missing(decoder):
            raise ValueError(f"decoder '{decoder}' cannot be used: {missing}. To install it: {_REMEDIES[decoder]}")
        return (decoder,)
    usable = tuple(candidate for candidate in _FASTEST_FIRST if not _missing(candidate))
    if not usable:
        reasons = "; ".join(f"{candidate}: {_missing(candidate)}" for candidate in _FASTEST_FIRST)
        raise ValueError(f"no decoder of videos can be used ({reasons}). The simplest: {_REMEDIES['pyav']}")
    return tuple(one for one in usable if one != "decord" or "pyav" not in usable)


@cache
def _missing(decoder: Decoder) -> str:
    """Why a decoder cannot be used, "" if it can."""
    try:
        importlib.import_module(f"modalities.video.decode.{decoder}_")
    except (ImportError, OSError, RuntimeError) as error:  # the last where FFmpeg's libraries are not found
        return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")
    return ""


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
        source.open("rb").close()  # decoders do not say whether it is a matter of permission


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and type(error).__module__ == "builtins":
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[-1][:200] if lines else type(error).__name__
