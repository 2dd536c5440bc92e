"""Videos stored as images or arrays: folders of frames, single images, and .npy files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa.modality import BadSampleError
from modalities.storage.images import decode_image, image_extensions
from modalities.storage.pixels import AS_STORED, PixelSettings
from modalities.video.decode.stored import ArrayVideo, StoredVideo, VideoInfo, check_indices, reduced
from modalities.video.frame_names import in_order


@dataclass(frozen=True, eq=False)
class FrameFolder(StoredVideo):
    """A folder with one image per frame, ordered by the numbers in their names; `fps`: its frame rate."""

    folder: Path
    fps: float
    pixels: PixelSettings = AS_STORED

    @property
    def info(self) -> VideoInfo:
        """Number of images, and size of the first."""
        height, width = self._frame(0, None).shape[-2:]
        return VideoInfo(len(self._names), self.fps, height, width)

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo; frames of different sizes are a bad sample."""
        check_indices(indices, len(self._names))
        frames = {index: self._frame(index, short_side) for index in dict.fromkeys(indices)}
        sizes = {tuple(frame.shape): index for index, frame in frames.items()}
        if len(sizes) > 1:
            one, other = (self._names[index] for index in list(sizes.values())[:2])
            raise BadSampleError(str(self.folder), f"frames differ in size, such as {one} and {other}")
        return (
            torch.stack([frames[index] for index in indices]) if frames else torch.empty(0, 3, 1, 1, dtype=torch.uint8)
        )

    @cached_property
    def _names(self) -> list[str]:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except OSError as error:
            raise BadSampleError(str(self.folder), error.strerror or str(error)) from error
        frames = [name for name in names if Path(name).suffix.lower() in image_extensions() and name[0] != "."]
        if not frames:
            raise BadSampleError(str(self.folder), "no frames in this folder")
        try:
            return in_order(frames)
        except ValueError as error:
            raise BadSampleError(str(self.folder), str(error)) from error

    def _frame(self, index: int, short_side: int | None) -> Tensor:
        image = decode_image(self.folder / self._names[index], short_side or 2**16, pixels=self.pixels)
        return reduced(image.unsqueeze(0), short_side)[0]


@dataclass(frozen=True, eq=False)
class StillImage(StoredVideo):
    """An image file as a video of one frame, which gives a still clip."""

    path: Path
    pixels: PixelSettings = AS_STORED

    @property
    def info(self) -> VideoInfo:
        """One frame, and its size."""
        return _still(self._image(None))

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        return self.clip(lambda _: indices, short_side)

    def clip(self, choose: Callable[[VideoInfo], Sequence[int]], short_side: int | None) -> Tensor:
        """Frames as in StoredVideo; the file is decoded once, at reduced size."""
        image = self._image(short_side)
        indices = list(choose(_still(image)))
        check_indices(indices, 1)
        return image[indices]

    def _image(self, short_side: int | None) -> Tensor:
        image = decode_image(self.path, short_side or 2**16, pixels=self.pixels)
        return reduced(image.unsqueeze(0), short_side)


def _still(image: Tensor) -> VideoInfo:
    return VideoInfo(1, 1.0, *image.shape[-2:])


@dataclass(frozen=True, eq=False)
class ArrayFile(StoredVideo):
    """A .npy file of uint8 [T, H, W, 3], or grey [T, H, W]; only the wanted frames are read."""

    path: Path
    fps: float

    @property
    def info(self) -> VideoInfo:
        """Facts from the header of the file."""
        return self._mapped().info

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        return self._mapped().read(indices, short_side)

    def _mapped(self) -> ArrayVideo:
        try:
            array: NDArray[np.uint8] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # numpy raises many types for a broken file.
            reason = error.strerror if isinstance(error, OSError) else None
            raise BadSampleError(str(self.path), reason or "not a complete .npy file") from error
        valid = array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3))
        if not valid or 0 in array.shape:
            found = f"{array.dtype} {list(array.shape)}"
            raise BadSampleError(str(self.path), f"{found}; uint8 [T, H, W, 3] or [T, H, W] is needed")
        return ArrayVideo(array, self.fps)
