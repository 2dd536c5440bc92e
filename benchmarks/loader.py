"""CPU time to turn a JPEG file into a training picture: python -m benchmarks.loader --json FILE.json [--data FOLDER]

The ways take turns on the same files, in rotating order, in one process with one thread, and end with a collated batch
of random crops of 224 pixels. `published` is what I-JEPA's code does: Pillow, then torchvision's transforms of Pillow
images. `torchvision v2` decodes with torchvision.io and transforms uint8 tensors; `webdataset` reads the files from
tars and goes on as published. `ours` is what workers do: a batch of uint8, which the device normalises;
`ours, normalised` includes that work, on the CPU. Without `--data`, pictures of ImageNet's size are generated.
"""

import argparse
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor
from torch.utils.data import default_collate
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

from benchmarks import provenance
from jepa.data import open_split, seeded
from jepa.data.collate import collated
from modalities.image import Image, ImageConfig
from modalities.image.views import resized_crop, stored_side
from modalities.storage import images

_SIDE, _SCALE, _BATCH = 224, (0.3, 1.0), 32
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIZES = ((500, 375), (375, 500), (500, 333), (640, 480), (400, 300))  # width, height
_PUBLISHED = transforms.Compose(
    [transforms.RandomResizedCrop(_SIDE, _SCALE), transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)]
)
_BYTES = v2.Compose(
    [v2.RandomResizedCrop(_SIDE, _SCALE), v2.ToDtype(torch.float32, scale=True), v2.Normalize(_MEAN, _STD)]
)
Way = Callable[[Sequence[Path]], Any]  # files -> a batch


def generate(folder: Path, count: int) -> None:
    """Write JPEGs of quality 90 whose spectrum falls like that of photographs, in ten class folders."""
    random = np.random.default_rng(0)
    for number in range(count):
        width, height = _SIZES[number % len(_SIZES)]
        frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
        phases = np.exp(2j * np.pi * random.random((3, *frequencies.shape)))
        waves = np.fft.irfft2(phases / np.maximum(frequencies, 1 / width) ** 1.2, s=(height, width))
        waves[1:] = 0.8 * waves[:1] + 0.4 * waves[1:]  # colours vary less than brightness
        pixels = 127 + 50 * waves / waves.std(axis=(1, 2), keepdims=True) + random.normal(0, 2, waves.shape)
        file = folder / str(number % 10) / f"{number:04}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)).save(file, quality=90)


def published(files: Sequence[Path]) -> Tensor:
    """Pillow and torchvision's transforms, as I-JEPA's published code."""
    batch: Tensor = default_collate([_PUBLISHED(PillowImage.open(file).convert("RGB")) for file in files])
    return batch


def torchvision_v2(files: Sequence[Path]) -> Tensor:
    """Torchvision's decoder and its transforms of uint8 tensors."""

    def decoded(file: Path) -> Tensor:
        data = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
        image: Tensor = decode_jpeg(data, ImageReadMode.RGB)
        return image

    batch: Tensor = default_collate([_BYTES(decoded(file)) for file in files])
    return batch


def webdataset_way(folder: Path, files: Sequence[Path]) -> Way:
    """Webdataset's pipeline over tars of the same files, one for each batch."""
    import webdataset  # type: ignore[import-untyped]

    tars = {}
    for first in range(0, len(files), _BATCH):
        part = files[first : first + _BATCH]
        tars[part[0]] = folder / f"{first:06}.tar"
        with tarfile.open(tars[part[0]], "w") as tar:
            for file in part:
                tar.add(file, f"{file.stem}.jpg")

    def read(batch: Sequence[Path]) -> Any:
        pictures = webdataset.WebDataset(str(tars[batch[0]]), shardshuffle=False).decode("pil").to_tuple("jpg")
        return next(iter(pictures.map_tuple(_PUBLISHED).batched(len(batch))))

    return read


def our_way(root: Path, files: Sequence[Path], normalised: bool = False, jpeg_library: bool = True) -> Way:
    """Batches of the image modality. jpeg_library: False decodes with Pillow, as where simplejpeg is absent."""
    modality = Image(ImageConfig(source="folder", root=root, labels="none", image_size=_SIDE, crop_scale=_SCALE))
    samples = open_split(modality, "train")
    numbers = {samples.folder / path: number for number, path in enumerate(samples.paths)}  # type: ignore[attr-defined]

    def read(batch: Sequence[Path]) -> Any:
        inputs = (samples[numbers[file]].inputs for file in batch)
        views = [modality.loader_view(one, seeded("view", 0, place)) for place, one in enumerate(inputs)]
        return modality.to_network(collated(views)) if normalised else collated(views)

    if jpeg_library:
        return read

    def with_pillow(batch: Sequence[Path]) -> Any:
        with patch.object(images, "_decode_jpeg", lambda: None):
            return read(batch)

    return with_pillow


def pixel_errors(files: Sequence[Path]) -> dict[str, float]:
    """Our crops against Pillow's decoding and antialiased resizing of the same boxes, in levels of 255."""
    differences = []
    for place, file in enumerate(files):
        image = images.decode_image(file, stored_side((_SIDE, _SIDE), _SCALE))
        with PillowImage.open(file) as opened:
            exact = opened.convert("RGB")
        height, width = image.shape[-2:]
        share = 0.6 + 0.4 * float(torch.rand((), generator=seeded("box", place)))
        box = (height // 10, width // 10, int(share * height * 0.9), int(share * width * 0.9))
        ratio = exact.width / width  # above 1 if the JPEG was decoded at a fraction of its size
        corners = (ratio * box[1], ratio * box[0], ratio * (box[1] + box[3]), ratio * (box[0] + box[2]))
        theirs = exact.resize((_SIDE, _SIDE), PillowImage.Resampling.BILINEAR, corners)
        ours = resized_crop(image, box, (_SIDE, _SIDE)).permute(1, 2, 0).numpy().astype(int)
        differences.append(np.abs(ours - np.asarray(theirs).astype(int)))
    return {"mean": mean(float(one.mean()) for one in differences), "max": max(int(one.max()) for one in differences)}


def measure(ways: dict[str, Way], files: Sequence[Path], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of CPU time a picture, by way and round."""
    batches, names = [files[first : first + _BATCH] for first in range(0, len(files), _BATCH)], list(ways)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):  # the first round warms up
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            started = time.process_time()
            for batch in batches:
                ways[name](batch)
            if number >= 0:
                times[name].append(1e3 * (time.process_time() - started) / len(files))
    return times


def page(times: dict[str, list[float]], errors: dict[str, float], size: float, count: int) -> str:
    """A row per way: median and spread, and its speed in units of the published way, round by round."""
    rows = []
    for name, own in times.items():
        ratios = sorted(one / other for one, other in zip(times["published"], own, strict=True))
        spread = f"{median(own):.2f} ({min(own):.2f} to {max(own):.2f})"
        rows.append([name, spread, f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"])
    headings = ["way", "CPU ms a picture", "times as fast as published"]
    return (
        f"{count} JPEGs of {size / 1024:.0f} KiB on average, crops of {_SIDE} px in batches of {_BATCH}; medians and "
        f"range of {len(times['published'])} rounds.\n\n{provenance.table(headings, rows)}\n\n"
        f"Our crops against Pillow's decoding and resizing of the same boxes: mean absolute error {errors['mean']:.2f} "
        f"of 255 levels, at most {errors['max']:.0f}."
    )


def main() -> None:
    """Measure in turn, and write the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of JPEGs; by default they are generated")
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="32 pictures, 3 rounds")
    parser.add_argument("--json", type=Path, required=True, help="result; a .md of the same name is written beside it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures, rounds = (32, 3) if options.quick else (options.pictures, options.rounds)
    with TemporaryDirectory() as scratch:
        root = options.data or Path(scratch, "pictures")
        if options.data is None:
            generate(root, pictures)
        modality_files = open_split(Image(ImageConfig(source="folder", root=root, labels="none")), "train")
        files = [modality_files.folder / path for path in list(modality_files.paths)[:pictures]]  # type: ignore[attr-defined]
        ways: dict[str, Way] = {
            "published": published,
            "torchvision v2": torchvision_v2,
            "webdataset": webdataset_way(Path(scratch), files),
            "ours": our_way(root, files),
            "ours, normalised": our_way(root, files, normalised=True),
            "ours, decoded by Pillow": our_way(root, files, jpeg_library=False),
        }
        times, errors = measure(ways, files, rounds), pixel_errors(files)
        size = mean(file.stat().st_size for file in files)
    source = provenance.provenance("benchmarks.loader")
    record = {**source, "bytes": size, "ms_a_picture": times, "pixel_errors": errors}
    provenance.write(options.json, record, f"{provenance.heading(source)}\n\n{page(times, errors, size, len(files))}")


if __name__ == "__main__":
    main()
