"""Views: crops distributed as in torchvision, as functions of a generator."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from modalities.image.views import center_view, denormalise, normalise, random_resized_crop, resized_crop

SCALE, ASPECT = (0.3, 1.0), (3 / 4, 4 / 3)


def views(image: Tensor, count: int, seed: int = 0, size: tuple[int, int] = (8, 8), flip: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [random_resized_crop(image, size, SCALE, ASPECT, flip, generator) for _ in range(count)]


def test_random_crops_depend_on_the_generator_only() -> None:
    image = noise()
    before = torch.get_rng_state()
    first, again, other = views(image, 5, 0), views(image, 5, 0), views(image, 5, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(image, noise())


def noise() -> Tensor:
    """A random image [3, 40, 48] with innermost channels in memory, like decoded images."""
    pixels = torch.randint(256, (40, 48, 3), generator=torch.Generator().manual_seed(0))
    return pixels.to(torch.uint8).permute(2, 0, 1)


def ramp(height: int, width: int) -> Tensor:
    """Channels: column, row, and 0."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)]).to(torch.uint8)


@pytest.mark.parametrize("shape", [(96, 128), (100, 100), (160, 80)])
def test_random_crops_are_distributed_like_those_of_torchvision(shape: tuple[int, int]) -> None:
    image, count = ramp(*shape), 1500
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transform = v2.RandomResizedCrop((8, 8), SCALE, ASPECT, antialias=True)
        theirs = torch.stack([transform(image) for _ in range(count)]).float()
    ours = torch.stack(views(image, count)).float()
    error = (ours.var(0) / count + theirs.var(0) / count).sqrt()  # [3, 8, 8], of the difference of means
    assert ((ours.mean(0) - theirs.mean(0)).abs() <= 4.5 * error).all()
    assert torch.allclose(ours.std(0), theirs.std(0), rtol=0.12)


def test_every_placement_of_a_random_crop_is_equally_likely() -> None:
    image, generator = ramp(6, 6), torch.Generator().manual_seed(0)
    crops = [random_resized_crop(image, (5, 5), (25 / 36, 25 / 36), (1, 1), False, generator) for _ in range(800)]
    corners = [tuple(crop[:2, 0, 0].tolist()) for crop in crops]
    assert set(corners) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert all(150 < corners.count(corner) < 250 for corner in set(corners))


def test_a_crop_of_the_whole_image_at_its_own_size_changes_nothing() -> None:
    image = ramp(24, 30)
    generator = torch.Generator()
    assert torch.equal(random_resized_crop(image, (24, 30), (1, 1), (1.25, 1.25), False, generator), image)
    assert torch.equal(center_view(image, (24, 30)), image)


def test_half_of_the_crops_are_mirrored() -> None:
    image = ramp(40, 60)
    plain, flipped = views(image, 400), views(image, 400, flip=True)
    mirrored = [torch.equal(a.flip(-1), b) for a, b in zip(plain, flipped, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(plain, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 150 < sum(mirrored) < 250


@pytest.mark.parametrize("shape", [(1, 200), (200, 1), (1, 1), (3, 2)])
@pytest.mark.parametrize("size", [(8, 8), (8, 16)])
def test_images_of_extreme_aspect_give_views(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = ramp(*shape)
    for view in [center_view(image, size), *views(image, 20, size=size)]:
        assert view.shape == (3, *size)
        assert view.dtype == torch.uint8


@pytest.mark.parametrize(("shape", "size"), [((100, 50), (10, 10)), ((50, 100), (10, 10)), ((60, 90), (10, 40))])
def test_the_central_view_is_the_largest_centred_part_of_its_aspect(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    columns, rows, _ = center_view(ramp(*shape), size).float()
    covered = min(shape[0] / size[0], shape[1] / size[1])  # stored pixels per pixel of the view
    for values, length, pixels in ((rows, shape[0], size[0]), (columns.T, shape[1], size[1])):
        along = values.mean(1)
        assert abs(along.mean() - (length - 1) / 2) < 1
        assert abs((along[-1] - along[0]) / (pixels - 1) - covered) < 0.1 * covered


def test_the_memory_layout_does_not_change_a_view() -> None:
    image = noise()
    for ours, theirs in zip(views(image, 20), views(image.contiguous(), 20), strict=True):
        assert (ours.int() - theirs.int()).abs().max() <= 1


def test_all_crops_of_an_image_have_one_memory_layout() -> None:
    image = torch.randint(256, (48, 60, 3), dtype=torch.uint8).permute(2, 0, 1)
    boxes = [(0, 0, 48, 60), (3, 0, 30, 60), (4, 5, 20, 30), (0, 0, 1, 60), (2, 3, 1, 1)]
    assert {resized_crop(image, box, (32, 32)).stride() for box in boxes} == {(1, 96, 3)}


def test_normalise_equals_torchvisions() -> None:
    image = noise()
    expected = v2.functional.normalize(image.float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert torch.allclose(normalise(image), expected, atol=1e-5)
    assert torch.allclose(normalise(torch.stack([image, image]))[1], expected, atol=1e-5)


def test_denormalise_inverts_normalise() -> None:
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(denormalise(normalise(image)), image)
