"""Images for tests: of noise, in a folder per split and class; of one colour each, by name."""

import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Generator


def write_class_images(
    root: Path,
    counts: Mapping[str, int],
    classes: Sequence[str] = ("red", "green", "blue"),
    side: int = 16,
    coloured: bool = True,
) -> Path:
    """Write `counts[split]` images of noise, cycling through the classes; `coloured` brightens the class's channel."""
    generator = Generator().manual_seed(0)
    for split, count in counts.items():
        for number in range(count):
            label = number % len(classes)
            pixels = torch.randint(120, (side, side, 3), dtype=torch.uint8, generator=generator)
            pixels[..., label] += 100 * coloured
            path = root / split / classes[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.numpy()).save(path)
    return root


def write_images(root: Path, names: Iterable[str]) -> Path:
    """Write images of 4 x 4; the colour of each is a function of its name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(name))
    return root


def png(name: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), colour_of(name)).save(stream, "PNG")
    return stream.getvalue()


def colour_of(name: str) -> tuple[int, ...]:
    return tuple(zlib.crc32(name.encode("utf-8", "surrogateescape")).to_bytes(4, "big")[:3])
