"""Images with nuisance: noise, backgrounds and patches of other images, which say nothing about the class.

Every change is a function of (seed, file name), so the same command writes the same files. Training, validation and
test images get the same kind of nuisance, and other images come from the same split.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jepa.console import CONSOLE
from jepa.errors import UserError
from modalities.storage.images import image_extensions
from modalities.worlds.scenes.dataset import Scenes, ScenesConfig, default_cache_dir
from modalities.worlds.scenes.shapes import CLASSES

Pixels = NDArray[np.uint8]  # [H, W, 3]
PATCH = 3  # sides of an image in the side of a pasted patch


class NuisanceError(UserError, ValueError):
    """A folder cannot be read or written; the message is one sentence."""


@dataclass(frozen=True)
class Nuisance:
    """What is added, in this order.

    background: share of another image at the border, falling to none within the middle half of the radius. patches:
    squares of other images, a third of the side each, pasted at random places. noise: standard deviation of Gaussian
    noise on every value of 0..255, which is then clipped.
    """

    background: float = 0.0
    patches: int = 0
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise NuisanceError if nothing would be added, or less than nothing."""
        if not (self.background or self.patches or self.noise):
            raise NuisanceError("no nuisance is chosen; set --noise, --background or --patches")
        if not 0 <= self.background <= 1:
            raise NuisanceError(f"--background: should be a share of at least 0 and at most 1, not {self.background}")
        if min(self.patches, self.noise) < 0:
            raise NuisanceError("--noise and --patches: should not be below 0")

    def applied(self, name: str, own: Pixels, others: "OtherImages") -> Pixels:
        """The image of a file with its nuisance."""
        random = np.random.default_rng(_number(self.seed, name))
        pixels = own.astype(np.float32)
        if self.background:
            share = self.background * border_share(own.shape[0], own.shape[1])[..., None]
            pixels += share * (others.drawn(random, name, own.shape) - pixels)
        for _ in range(self.patches):
            _paste(pixels, others.drawn(random, name, own.shape), random)
        if self.noise:
            pixels += random.normal(0, self.noise, pixels.shape).astype(np.float32)
        return pixels.round().clip(0, 255).astype(np.uint8)


def border_share(height: int, width: int) -> NDArray[np.float32]:
    """Weight of a background: 0 within half of the distance from the centre to the sides, 1 at the sides: [H, W]."""
    y, x = np.linspace(-1, 1, height), np.linspace(-1, 1, width)
    radius = np.hypot(y[:, None], x[None, :])
    share: NDArray[np.float32] = np.clip(2 * radius - 1, 0, 1).astype(np.float32)
    return share


def _paste(pixels: NDArray[np.float32], other: NDArray[np.float32], random: np.random.Generator) -> None:
    """Copy a square of another image of the same size to another place."""
    height, width, _ = pixels.shape
    side = min(height, width) // PATCH
    (y, from_y), (x, from_x) = random.integers(height - side + 1, size=2), random.integers(width - side + 1, size=2)
    pixels[y : y + side, x : x + side] = other[from_y : from_y + side, from_x : from_x + side]


class OtherImages:
    """The images of one split, from which others are drawn."""

    def __init__(self, images: "Images", names: Sequence[str]) -> None:
        self.images, self.names = images, names

    def drawn(self, random: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Another image than `name`, resized to its shape."""
        if len(self.names) < 2:
            raise NuisanceError(f"{name} is the only image of its split, so there is no other to take")
        other = self.names[int(random.integers(len(self.names)))]
        while other == name:
            other = self.names[int(random.integers(len(self.names)))]
        picture = Image.fromarray(self.images.pixels(other))
        return np.asarray(picture.resize((shape[1], shape[0])), dtype=np.float32)


class Images:
    """Images by name, SPLIT/CLASS/FILE."""

    names: Sequence[str]

    def pixels(self, name: str) -> Pixels:
        """Read one image."""
        raise NotImplementedError


class FolderImages(Images):
    """The images of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = (path for path in folder.rglob("*") if path.suffix.lower() in image_extensions())
        self.names = sorted(path.relative_to(folder).as_posix() for path in files)

    def pixels(self, name: str) -> Pixels:
        with Image.open(self.folder / name) as image:
            return np.asarray(image.convert("RGB"))


class SceneImages(Images):
    """The embedded world: all splits, by class. Counts and depths are lost, as a folder holds classes alone."""

    def __init__(self, config: ScenesConfig, size: int) -> None:
        cache = default_cache_dir()
        self.splits = {split: Scenes(config, split, size, cache) for split in ("train", "validation", "test")}
        self.names = [
            f"{split}/{CLASSES[int(samples[index].labels['class'])]}/{index:06}.png"
            for split, samples in self.splits.items()
            for index in range(len(samples))
        ]

    def pixels(self, name: str) -> Pixels:
        split, _, file = name.split("/")
        pixels: Pixels = self.splits[split][int(file.partition(".")[0])].inputs.permute(1, 2, 0).numpy()
        return pixels


def write(images: Images, out: Path, nuisance: Nuisance) -> int:
    """Write all images as PNG, in the same folders -> their number. Raises NuisanceError."""
    if out.exists():
        raise NuisanceError(f"{out} exists already; choose another folder, or remove it")
    if not images.names:
        raise NuisanceError("there are no images to read")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    splits: dict[str, list[str]] = {}
    for name in images.names:
        splits.setdefault(name.partition("/")[0], []).append(name)
    for split, names in splits.items():
        CONSOLE.print(f"{split}: {len(names):,} images", highlight=False)
        others = OtherImages(images, names)
        for name in names:
            path = partial / (name if name.endswith(".png") else f"{name}.png")  # photo.jpg and photo.png stay two
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(nuisance.applied(name, images.pixels(name), others)).save(path, compress_level=1)
    partial.rename(out)
    return len(images.names)


def _number(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "big")
