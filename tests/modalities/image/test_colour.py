"""Random colours of views."""

import math
from pathlib import Path

import pytest
import torch
from pictures import write_class_images
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from modalities.image import Image, ImageConfig
from modalities.image.colour import ColourConfig, colour_matrix, coloured, random_colours


def view() -> Tensor:
    return torch.randint(60, 190, (3, 12, 10), generator=Generator().manual_seed(0)).to(torch.uint8)


def jitter(config: ColourConfig, seed: int = 0) -> Tensor:
    colours = random_colours(config, Generator().manual_seed(seed))
    return view() if colours is None else coloured(view(), colours)


ONLY = {"probability": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "grey": 0.0}


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_change_colours_as_in_torchvision(name: str) -> None:
    draw = 2 + ["brightness", "contrast", "saturation"].index(name)
    factor = 1 + 0.3 * (2 * float(torch.rand(6, generator=Generator().manual_seed(4))[draw]) - 1)
    expected = getattr(functional, f"adjust_{name}")(view(), factor)
    changed = jitter(ColourConfig(**{**ONLY, name: 0.3}), seed=4)
    assert (changed.int() - expected.int()).abs().max() <= 1
    assert not torch.equal(changed, view())


def test_hue_turns_colours_and_keeps_their_luminance_and_grey() -> None:
    luminance = torch.tensor([0.299, 0.587, 0.114])
    turned = colour_matrix(1.0, math.pi / 3)
    torch.testing.assert_close(luminance @ turned, luminance, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned @ torch.ones(3), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.linalg.matrix_power(turned, 6), torch.eye(3), atol=1e-4, rtol=0)
    assert not torch.equal(jitter(ColourConfig(**{**ONLY, "hue": 0.2})), view())


def test_views_are_changed_or_grey_as_often_as_configured() -> None:
    assert torch.equal(jitter(ColourConfig(**ONLY)), view())
    grey = jitter(ColourConfig(**{**ONLY, "grey": 1.0}))
    assert (grey[0].int() - grey[1].int()).abs().max() <= 1
    some = ColourConfig(probability=0.5, grey=0.0)
    kept = sum(torch.equal(jitter(some, seed), view()) for seed in range(200))
    assert 70 < kept < 130


def test_colours_of_a_view_come_from_its_generator_and_leave_its_crop_alone(tmp_path: Path) -> None:
    write_class_images(tmp_path, {"train": 3})
    plain = ImageConfig(source="folder", root=tmp_path, image_size=8, patch_size=4)
    coloured = ImageConfig(**{**vars(plain), "colour": ColourConfig(**{**ONLY, "brightness": 0.2})})
    inputs = Image(plain).dataset("train")[0].inputs
    generators = [Generator().manual_seed(5) for _ in range(3)]
    one, again, other = (
        [modality.loader_view(inputs, generator) for _ in range(2)]
        for modality, generator in zip((Image(coloured), Image(coloured), Image(plain)), generators, strict=True)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    ratio = one[0].float() / other[0].float()
    assert ratio.std() < 0.02
    assert abs(float(ratio.mean()) - 1) > 0.01
