"""Settings of decoding: the size limit, values of more than 8 bits, bands, and formats of further packages."""

import io
import struct
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import write_images
from PIL import Image

from jepa.config import build
from jepa.data.summary import summary_of
from jepa.modality import BadSampleError
from modalities.image import Image as ImageModality, ImageConfig, sources
from modalities.image.sources import open_source
from modalities.storage import images
from modalities.storage.images import decode_image
from modalities.storage.pixels import PixelSettings
from modalities.video import Video, VideoConfig

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def saved(path: Path, values: NDArray[Any], kind: str = "TIFF") -> Path:
    Image.fromarray(values).save(path, kind)
    return path


def bands_of(count: int, bits: int) -> NDArray[Any]:
    values = np.random.default_rng(0).integers(0, 2**bits, (6, 8, count))
    return values.astype(np.uint16 if bits > 8 else np.uint8)


def tiff(path: Path, values: NDArray[Any], extra: int = 0) -> Path:
    """An uncompressed RGB TIFF with further bands, which its header calls unspecified (0) or transparency (2)."""
    height, width, count = values.shape
    bits, data = 8 * values.dtype.itemsize, values.astype(values.dtype.newbyteorder("<")).tobytes()
    tags = [(256, [width]), (257, [height]), (258, [bits] * count), (259, [1]), (262, [2]), (273, [8]), (277, [count])]
    tags += [(278, [height]), (279, [len(data)]), (284, [1])] + [(338, [extra] * (count - 3))] * (count > 3)
    end = 8 + len(data)
    directory, further = struct.pack("<H", len(tags)), b""
    for tag, numbers in tags:
        raw = struct.pack(f"<{len(numbers)}H", *numbers)
        if len(raw) > 4:
            raw, further = struct.pack("<I", end + 6 + 12 * len(tags) + len(further)), further + raw
        directory += struct.pack("<HHI", tag, 3, len(numbers)) + raw.ljust(4, b"\0")
    path.write_bytes(b"II*\0" + struct.pack("<I", end) + data + directory + bytes(4) + further)
    return path


def write_shards(root: Path, shards: Iterable[tuple[str, Mapping[str, bytes]]]) -> None:
    root.mkdir()
    for name, files in shards:
        with tarfile.open(root / name, "w") as archive:
            for file, data in files.items():
                member = tarfile.TarInfo(file)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def deep_png(path: Path, values: NDArray[Any]) -> Path:
    """A PNG of 16 bits per band: grey and alpha, RGB, or RGBA."""
    height, width, count = values.shape
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[count], 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)),
        b"IEND": b"",
    }
    chunks = [
        struct.pack(">I", len(data)) + t + data + struct.pack(">I", zlib.crc32(t + data)) for t, data in parts.items()
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def test_the_limit_on_pixels_applies_to_what_is_decoded_and_is_a_setting() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (1200, 900), "olive").save(stream, "JPEG")
    small = PixelSettings(max_megapixels=0.1)  # the file stores 1.08 megapixels
    assert decode_image(stream.getvalue(), 100, pixels=small).shape == (3, 113, 150)
    with pytest.raises(BadSampleError, match=r"1200 x 900 .* data\.max_megapixels=0\.1 allows"):
        decode_image(stream.getvalue(), 900, pixels=small)


def test_a_jpeg_of_108_megapixels_is_decoded_reduced() -> None:
    stream = io.BytesIO()
    Image.new("L", (12_000, 9_000), 99).save(stream, "JPEG", quality=10)
    image = decode_image(stream.getvalue(), 400, pixels=PixelSettings(max_megapixels=5))
    assert image.shape == (3, 1125, 1500)


def test_value_range_maps_deep_values_to_black_and_white(tmp_path: Path) -> None:
    twelve = PixelSettings(value_range=(0, 4095))
    expected = np.rint(RAMP / 4095 * 255).astype(np.uint8)
    colour = np.stack([RAMP, RAMP[::-1], RAMP.T], -1)
    scaled = np.stack([expected, expected[::-1], expected.T], -1)
    opaque = np.concatenate([colour, np.full_like(colour[..., :1], 65535)], -1)
    for path in (saved(tmp_path / "a.png", RAMP, "PNG"), saved(tmp_path / "a.tif", RAMP.astype(np.float32))):
        assert np.array_equal(decode_image(path, 1, pixels=twelve)[0], expected)
    for path in (deep_png(tmp_path / "rgb.png", colour), deep_png(tmp_path / "rgba.png", opaque)):
        assert np.array_equal(decode_image(path, 1, pixels=twelve).permute(1, 2, 0), scaled)
        assert decode_image(path, 1).max() == 15  # without the setting as before: the upper 8 bits
    wide = np.tile(RAMP, (5, 5))  # larger than the table of all values
    assert np.array_equal(
        decode_image(saved(tmp_path / "wide.png", wide, "PNG"), 1, pixels=twelve)[0], np.tile(expected, (5, 5))
    )
    constant = saved(tmp_path / "constant.tif", np.full((4, 4), -7.0, np.float32))
    assert decode_image(constant, 1).max() == 0
    clipped = decode_image(tmp_path / "a.png", 1, pixels=PixelSettings(value_range=(1000, 2000)))[0].flatten()
    assert clipped[:1001].max() == 0
    assert clipped[2000:].min() == 255


def test_more_bands_than_colours_are_refused_unless_bands_chooses_some(tmp_path: Path) -> None:
    for count, bits in ((4, 8), (5, 8), (4, 16), (13, 8), (13, 16)):
        path = tiff(tmp_path / f"{count}_{bits}.tif", bands_of(count, bits))
        with pytest.raises(BadSampleError, match=rf"{count} bands, .* data\.bands chooses") as caught:
            decode_image(path, 1)
        assert caught.value.source == str(path)
    clear = tiff(tmp_path / "clear.tif", np.zeros((6, 8, 4), np.uint16), extra=2)
    assert decode_image(clear, 1, pixels=PixelSettings(value_range=(0, 4095))).min() == 255
    alpha = bands_of(4, 8)
    alpha[..., 3] = 255
    assert np.array_equal(decode_image(tiff(tmp_path / "rgba.tif", alpha, extra=2), 1).permute(1, 2, 0), alpha[..., :3])


def test_bands_chooses_three_or_one_in_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tifffile = pytest.importorskip("tifffile")
    eight, sixteen = bands_of(5, 8), bands_of(13, 16)
    chosen = decode_image(tiff(tmp_path / "5.tif", eight), 1, pixels=PixelSettings(bands=(5, 1, 2)))
    assert np.array_equal(chosen.permute(1, 2, 0), eight[..., [4, 0, 1]])
    planes = bands_of(5, 8)[:, :5]  # as wide as there are bands
    tifffile.imwrite(tmp_path / "p.tif", np.moveaxis(planes, -1, 0), photometric="rgb", planarconfig="separate")
    chosen = decode_image(tmp_path / "p.tif", 1, pixels=PixelSettings(bands=(5, 1, 2)))
    assert np.array_equal(chosen.permute(1, 2, 0), planes[..., [4, 0, 1]])
    path = tiff(tmp_path / "13.tif", sixteen)
    grey = decode_image(path, 1, pixels=PixelSettings(bands=(13,), value_range=(0, 65535)))
    assert np.array_equal(grey[1], np.rint(sixteen[..., 12] / 257).astype(np.uint8))
    with pytest.raises(BadSampleError, match="asks for band 14, but the file has 13"):
        decode_image(path, 1, pixels=PixelSettings(bands=(14,)))
    assert capfd.readouterr().err == ""
    png = saved(tmp_path / "rgb.png", eight[..., :3], "PNG")
    swapped = decode_image(png, 1, pixels=PixelSettings(bands=(3, 2, 1)))
    assert np.array_equal(swapped.permute(1, 2, 0), eight[..., [2, 1, 0]])


def test_settings_reach_the_files_of_a_source_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", RAMP, "PNG")
    config = build(ImageConfig, [{"value_range": [0, 4095], "bands": [1]}])
    sample = open_source("folder", tmp_path, "train", min_side=1, pixels=config).samples[0]
    assert sample.inputs.max() == 255
    for wrong in ({"value_range": [5, 5]}, {"bands": [1, 2]}, {"bands": [0]}, {"max_megapixels": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            build(ImageConfig, [wrong])


@pytest.mark.parametrize(
    ("ending", "low", "high", "advice"),
    [
        ("png", 0, 4095, "use 16 of 256 levels; data.value_range=[0,4095] would use all"),
        ("tif", 0, 16383, "use 64 of 256 levels; data.value_range=[0,16383] would use all"),
        ("png", 29_003, 30_990, "use 8 of 256 levels; data.value_range=[29000,31000] would use all"),
        ("tif", 0.0, 0.05, "use 13 of 256 levels; data.value_range=[0,0.05] would use all"),
        ("tif", -3.0, 812.0, "scaled by its own extremes; data.value_range=[-10,820] would scale all alike"),
        ("png", 0, 65_535, None),
        ("tif", 0.0, 1.0, None),
    ],
)
def test_values_in_few_levels_are_a_warning_with_the_range_that_fits(
    ending: str, low: float, high: float, advice: str | None, tmp_path: Path
) -> None:
    dtype = np.float32 if isinstance(low, float) else np.uint16
    for number in range(12):
        values = np.linspace(low, high, 4096).astype(dtype).reshape(64, 64)
        values[0, 0] = 65_535 if dtype == np.uint16 else values[0, 0]  # a hot pixel
        saved(tmp_path / f"{number}.{ending}", values, {"png": "PNG", "tif": "TIFF"}[ending])
    settings: dict[str, Any] = {"source": "folder", "root": str(tmp_path), "image_size": 64}
    warnings = ImageModality(build(ImageConfig, [settings])).data_warnings()
    assert len(warnings) == (advice is not None)
    assert all(warning.endswith(str(advice)) for warning in warnings)
    assert not ImageModality(build(ImageConfig, [settings, {"value_range": [low, high]}])).data_warnings()


def test_deep_colours_and_video_frames_are_warned_about_too(tmp_path: Path) -> None:
    colour = np.stack([RAMP, RAMP[::-1], RAMP.T, np.full_like(RAMP, 65_535)], -1)
    (tmp_path / "clip").mkdir()
    for number in range(4):
        deep_png(tmp_path / "clip" / f"{number}.png", colour)
    common: dict[str, Any] = {"root": str(tmp_path), "image_size": 64}
    image = ImageModality(build(ImageConfig, [common, {"source": "folder"}]))
    video = Video(build(VideoConfig, [common, {"source": "frames", "frames": 4}]))
    for modality in (image, video):
        (warning,) = modality.data_warnings()
        assert "data.value_range=[0,4095]" in warning
    assert image.dataset("train")[0].inputs.max() == 15  # what is observed changes nothing else


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    assert ".heic" in images.image_extensions()
    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 30))).save(path)
    image = decode_image(path, 1)
    assert image.shape == (3, 48, 64)
    assert abs(int(image[0, 20, 20]) - 200) < 8


def test_files_that_a_package_would_read_are_counted_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "image_extensions", lambda: frozenset({".png"}))
    monkeypatch.setattr(sources, "installable_extensions", lambda: ((".heic", "pip install it"),))
    files = {f"{number}.heic": b"" for number in range(3)}
    write_shards(tmp_path / "shards", [("a.tar", files)])
    write_shards(tmp_path / "mixed", [("a.tar", {**files, "a.png": b""})])
    for name in files:
        write_images(tmp_path / "folder", [name])
    for source, folder in (("folder", "folder"), ("webdataset", "shards")):
        with pytest.raises(ValueError, match=r"no images .*; 3 end in \.heic; to read them: pip install it$"):
            open_source(source, tmp_path / folder, "train", min_side=1)
    write_images(tmp_path / "folder", ["a.png"])
    for source, folder in (("folder", "folder"), ("webdataset", "mixed")):
        samples = open_source(source, tmp_path / folder, "train", min_side=1).samples
        assert summary_of(samples).notes == ("3 end in .heic; to read them: pip install it",)


def test_a_heic_image_without_pillow_heif_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "image_formats", lambda: ("JPEG", "PNG"))
    with pytest.raises(BadSampleError, match="HEIC image; to read it: pip install pillow-heif"):
        decode_image(b"\0\0\0\x18ftypheic" + bytes(100), 1)
