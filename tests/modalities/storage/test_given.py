"""Inputs that a caller gives: every form of the same picture or clip is the same input."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from tiny import Noise, NoiseConfig

from jepa.data.given import stored_input
from jepa.modality import BadSampleError
from modalities.image import Image
from modalities.image.config import ImageConfig
from modalities.video import Video
from modalities.video.config import VideoConfig

PIXELS = np.random.default_rng(0).integers(256, size=(5, 3, 20, 24), dtype=np.uint8)  # five frames


def test_files_arrays_and_pillow_images_of_a_picture_are_the_same_input(tmp_path: Path) -> None:
    image, planes = Image(ImageConfig(image_size=16, patch_size=4)), PIXELS[0]
    rows = planes.transpose(1, 2, 0)
    PillowImage.fromarray(rows).save(tmp_path / "a.png")
    given = [tmp_path / "a.png", str(tmp_path / "a.png"), PillowImage.fromarray(rows), rows, planes]
    given += [torch.from_numpy(planes), planes / 255, rows.astype(np.uint16) * 257]
    given += [np.dstack([rows, np.full_like(rows[..., :1], 255)])]
    for one in given:
        assert torch.equal(stored_input(image, one), torch.from_numpy(planes)), one
    assert torch.equal(stored_input(image, planes / 127.5 - 1, (-1, 1)), torch.from_numpy(planes))
    assert torch.equal(stored_input(image, rows[..., 0]), torch.from_numpy(planes[:1]).expand(3, -1, -1))


def test_transparent_pixels_of_every_form_are_white(tmp_path: Path) -> None:
    settings = ImageConfig(image_size=16, patch_size=4)
    image, video = Image(settings), Video(VideoConfig(image_size=16, patch_size=4, frames=4))
    rows = np.concatenate([PIXELS, PIXELS[:, :1] // 2], axis=1).transpose(0, 2, 3, 1)  # [5, 20, 24, 4]
    picture = PillowImage.fromarray(rows[0])
    picture.save(tmp_path / "a.png")
    expected = stored_input(image, picture)
    assert not torch.equal(expected, torch.from_numpy(PIXELS[0]))
    planes = rows[0].transpose(2, 0, 1)
    for one in (tmp_path / "a.png", rows[0], planes, rows[0] / 255, rows[0].astype(np.uint16) * 257):
        assert torch.equal(stored_input(image, one), expected)
    clip = stored_input(video, rows)
    assert torch.equal(clip, torch.stack([stored_input(image, PillowImage.fromarray(frame)) for frame in rows]))
    of_bands = Image(replace(settings, bands=(1, 2, 3)))
    assert all(torch.equal(stored_input(of_bands, one), torch.from_numpy(PIXELS[0])) for one in (rows[0], picture))


def test_files_and_arrays_of_a_clip_are_the_same_view(tmp_path: Path) -> None:
    video = Video(VideoConfig(image_size=16, patch_size=4, frames=4))
    frames = PIXELS.transpose(0, 2, 3, 1)
    np.save(tmp_path / "a.npy", frames)
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(frames):
        PillowImage.fromarray(frame).save(tmp_path / "frames" / f"{number}.png")
    given = [tmp_path / "a.npy", tmp_path / "frames", frames, PIXELS, torch.from_numpy(PIXELS), frames / 255]
    first, *others = [video.evaluation_view(stored_input(video, one)) for one in given]
    assert all(torch.equal(first, other) for other in others)
    still = video.evaluation_view(stored_input(video, tmp_path / "frames" / "0.png"))
    assert torch.equal(still, still[:, :1].expand_as(still))


def test_what_is_no_picture_is_refused_with_a_reason(tmp_path: Path) -> None:
    image, video = Image(ImageConfig(image_size=16, patch_size=4)), Video(VideoConfig(image_size=16, patch_size=4))
    for modality, given, words in (
        (image, PIXELS[0] * 1.0, "value_range 0 to 1; set value_range"),
        (image, PIXELS[0].astype(np.int64), "pixels of int64 may mean anything; give uint8 or uint16"),
        (image, PIXELS, r"no picture; allowed are arrays of numbers \[H, W, 3\]"),
        (image, np.zeros((5, 20, 24)), "no axis of 1, 3 or 4 colours"),
        (image, np.zeros((24, 3), np.uint8), r"\[24, 3\] lacks an axis, as its last one holds colours"),
        (video, PillowImage.new("RGB", (9, 9)), "a video is a path, or an array"),
        (Noise(NoiseConfig()), "a.wav", "cannot read the file a.wav; give arrays"),
        (Noise(NoiseConfig()), [1.0], "in the shape of its samples"),
    ):
        with pytest.raises(ValueError, match=words):
            stored_input(modality, given)
    with pytest.raises(BadSampleError, match="nowhere"):
        stored_input(image, tmp_path / "nowhere.png")


def test_a_modality_without_a_method_takes_arrays_as_they_are() -> None:
    read_only = np.arange(6.0).reshape(2, 3)[:, ::-1]
    read_only.flags.writeable = False
    taken = stored_input(Noise(NoiseConfig()), read_only)
    assert taken.dtype == torch.float32
    assert taken.tolist() == read_only.tolist()


def test_an_evaluation_view_is_of_stored_inputs_only() -> None:
    modality, stored = Image(ImageConfig(image_size=16, patch_size=4)), torch.from_numpy(PIXELS[0])
    rows = PIXELS[0].transpose(1, 2, 0)
    assert torch.equal(modality.evaluation_view(stored), modality.evaluation_view(stored_input(modality, rows)))
    refused: list[tuple[Any, str]] = [
        (stored / 255, r"not a tensor of float32 \[3, 20, 24\]"),
        (stored[0], r"not a tensor of uint8 \[20, 24\]"),
        (torch.from_numpy(rows), r"not a tensor of uint8 \[20, 24, 3\]"),
        (rows, r"not an array of uint8 \[20, 24, 3\]"),
        (PillowImage.fromarray(rows), "not an object of type Image"),
    ]
    for given, words in refused:
        with pytest.raises(ValueError, match=words + r"; jepa\.data\.given\.stored_input\(modality, image\) makes one"):
            modality.evaluation_view(given)
