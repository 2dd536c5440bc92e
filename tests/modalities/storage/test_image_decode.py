"""Decoding of images: all formats and pixel layouts become 8-bit RGB; broken files are bad samples."""

import io
import json
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import places
import pytest
import torch
from PIL import Image, ImageOps

from jepa.modality import BadSampleError
from modalities.storage import images as images_module
from modalities.storage.images import decode_image

REAL_DATA = places.REAL_DATA / "odd"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def photo(width: int = 48, height: int = 40) -> Image.Image:
    """Smooth colours without any symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / width, 255 * y / height, 127 + 60 * np.sin(x / 5) + 60 * np.cos(y / 7)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def grey(values: list[list[float]], mode: str) -> Image.Image:
    return Image.fromarray(np.array(values, dtype={"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))


def alpha(mode: str) -> Image.Image:
    image = Image.new("LA", (2, 1))
    image.putdata([(0, 255), (0, 0)])
    return image.convert(mode)


def palette_with_transparency() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putdata([0, 1])
    image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(Image.new("L", (2, 1), 7), "PNG"), [[7, 7, 7], [7, 7, 7]]),
        (encoded(Image.new("1", (2, 1), 1), "PNG"), [[255, 255, 255], [255, 255, 255]]),
        (encoded(alpha("LA"), "PNG"), [[0, 0, 0], [255, 255, 255]]),
        (encoded(alpha("RGBA"), "PNG"), [[0, 0, 0], [255, 255, 255]]),
        (encoded(palette_with_transparency(), "PNG"), [[0, 0, 0], [255, 255, 255]]),
        (encoded(palette_with_transparency(), "GIF"), [[0, 0, 0], [255, 255, 255]]),
        (encoded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG", transparency=(9, 8, 7)), [[255, 255, 255]]),
        (encoded(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), "TIFF"), [[0, 255, 255]]),
        (encoded(grey([[0, 257 * 100, 65535]], "I;16"), "PNG"), [[0] * 3, [100] * 3, [255] * 3]),
        (encoded(grey([[0, 257 * 100, 65535]], "I"), "TIFF"), [[0] * 3, [100] * 3, [255] * 3]),
        (encoded(grey([[-10, 0, 10]], "I"), "TIFF"), [[0] * 3, [128] * 3, [255] * 3]),
        (encoded(grey([[0, 0.2, 1]], "F"), "TIFF"), [[0] * 3, [51] * 3, [255] * 3]),
        (encoded(grey([[2, 4, 7, np.nan]], "F"), "TIFF"), [[73] * 3, [146] * 3, [255] * 3, [0] * 3]),
    ],
    ids=[
        "L",
        "1",
        "LA",
        "RGBA",
        "P-png",
        "P-gif",
        "RGB-with-key",
        "CMYK",
        "I;16",
        "I-unsigned",
        "I-signed",
        "F-unit",
        "F-any",
    ],
)
def test_every_pixel_layout_becomes_8_bit_rgb(data: bytes, expected: list[list[int]]) -> None:
    image = decode_image(data, min_side=1)
    assert image.dtype == torch.uint8
    assert image[:, 0].T.tolist() == expected


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_photographs_are_turned_upright(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(), kind, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(decode_image(data, min_side=40).permute(1, 2, 0), upright)


@pytest.mark.parametrize("kind", ["GIF", "MPO", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_decoded(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    image = decode_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), min_side=8)
    assert image.shape == (3, 8, 8)
    assert (image[0] > 250).all()
    assert (image[2] < 5).all()


@pytest.mark.parametrize(("min_side", "side"), [(64, 100), (100, 100), (101, 200), (300, 400), (1000, 800)])
def test_a_large_jpeg_is_decoded_no_larger_than_needed(min_side: int, side: int) -> None:
    data = encoded(photo(1000, 800), "JPEG")
    assert decode_image(data, min_side).shape == (3, side, side * 5 // 4)


def decoded_or_reason(data: bytes, min_side: int) -> list[int] | str:
    try:
        return decode_image(data, min_side).flatten().tolist()  # type: ignore[no-any-return]
    except BadSampleError as error:
        return error.reason


def test_jpegs_have_the_same_pixels_and_errors_without_simplejpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    options: list[dict[str, object]] = [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 4}]
    images = [encoded(photo().convert(mode), "JPEG", **each) for mode in ("RGB", "L", "CMYK") for each in options]
    random = np.random.default_rng(0)
    for whole in list(images):
        for _ in range(10):
            damaged = bytearray(whole)
            damaged[random.integers(2, len(whole))] = random.integers(256)
            images.append(bytes(damaged[: random.integers(100, 3 * len(whole))]))
    sides = [int(random.choice([8, 20, 100])) for _ in images]
    calls = []
    decode = images_module._decode_jpeg()
    assert decode is not None
    monkeypatch.setattr(images_module, "_decode_jpeg", lambda: lambda *a, **k: (calls.append(1), decode(*a, **k))[1])
    fast = [decoded_or_reason(*each) for each in zip(images, sides, strict=True)]
    assert len(calls) > 60
    monkeypatch.setattr(images_module, "_decode_jpeg", lambda: None)
    assert fast == [decoded_or_reason(*each) for each in zip(images, sides, strict=True)]
    assert len({each for each in fast if isinstance(each, str)}) > 1


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of one pixel whose header states another size."""
    data = bytearray(encoded(Image.new("1", (1, 1)), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


JPEG, PNG = encoded(photo(), "JPEG"), encoded(photo(), "PNG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (JPEG[:-100], "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (JPEG[:100], "[Tt]runcated"),
        (b"", "not an image of a known format"),
        (b"<html><body>404</body></html>", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (png_claiming(20_000, 10_001), r"200 megapixels; data\.max_megapixels=200 "),
        (png_claiming(100_000, 100_000), r"10000 megapixels; data\.max_megapixels=200 "),
    ],
    ids=["half-jpeg", "half-png", "header-only", "empty", "html", "eps", "large-bomb", "huge-bomb"],
)
def test_a_broken_file_is_a_bad_sample_with_its_path_and_a_reason(data: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.jpg"
    file.write_bytes(data)
    with pytest.raises(BadSampleError, match=reason) as caught:
        decode_image(file, min_side=32)
    assert pickle.loads(pickle.dumps(caught.value)).source == str(file)
    with pytest.raises(BadSampleError, match=reason) as caught:
        decode_image(data, min_side=32, name="shard/broken.jpg")
    assert caught.value.source == "shard/broken.jpg"


@pytest.mark.real_data
@pytest.mark.skipif(not REAL_DATA.exists(), reason="the real images are not beside this checkout")
@pytest.mark.parametrize("folder", ["images_odd", "images_broken", "images_fuzz", "small"])
def test_real_unusual_and_broken_files_are_read_if_and_only_if_pillow_reads_them(folder: str) -> None:
    manifest = json.loads((REAL_DATA / "manifest.json").read_text())
    entries = [entry for entry in manifest if entry["file"].startswith(f"{folder}/")]
    assert entries
    for entry in entries:
        path, size = REAL_DATA / entry["file"], entry.get("size")
        if entry.get("pil") != "ok":
            with pytest.raises(BadSampleError, match=r".") as caught:
                decode_image(path, 10_000)
            assert caught.value.source == str(path)
            assert caught.value.reason
            continue
        image = decode_image(path, 10_000)
        assert image.dtype == torch.uint8
        assert image.shape[0] == 3
        assert sorted(image.shape[1:]) == sorted(size)
