"""Views that the device makes of stored images: the same as those that workers make."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import write_class_images
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from jepa.data.collate import collated
from jepa.launch import main
from jepa.modality import Sample
from jepa.testing import check_modality
from jepa.training.log import read_metrics
from modalities.image import Image, ImageConfig
from modalities.image.augment import Drawn, Pending, draw, views_on_device
from modalities.image.colour import ColourConfig

COLOUR = ColourConfig(probability=0.7, grey=0.3)
SIZES = [(16, 16), (40, 48), (9, 31), (64, 20)]  # smaller, equal and larger than the stored 40 x 48


def images(count: int = 12) -> Tensor:
    """Noise with innermost channels in memory, like decoded images: uint8 [count, 3, 40, 48]."""
    pixels = torch.randint(256, (count, 40, 48, 3), generator=Generator().manual_seed(0))
    return pixels.to(torch.uint8).permute(0, 3, 1, 2)


def drawn(colour: ColourConfig | None, count: int = 12) -> list[Drawn]:
    generator = Generator().manual_seed(1)
    return [draw((40, 48), (0.05, 1.0), (0.5, 2.0), True, colour, generator) for _ in range(count)]


def on_device(plans: list[Drawn], size: tuple[int, int]) -> Tensor:
    return views_on_device(images(len(plans)), torch.stack([one.numbers for one in plans]), size)


@pytest.mark.parametrize("size", SIZES)
def test_crops_of_a_batch_are_those_of_torch_in_exact_arithmetic(size: tuple[int, int]) -> None:
    plans = [*drawn(None), Drawn((0, 0, 40, 48), mirrored=False, colours=None)]
    for image, one, view in zip(images(len(plans)), plans, on_device(plans, size), strict=True):
        top, left, height, width = one.box
        part = image[None, :, top : top + height, left : left + width].double()
        exact = interpolate(part, size, mode="bilinear", antialias=True)[0]
        exact = exact.flip(-1) if one.mirrored else exact
        assert (view - exact).abs().max() <= 0.5 + 1e-3
        assert torch.equal(view, view.round())


@pytest.mark.parametrize(("colour", "levels"), [(None, 1), (COLOUR, 4)])  # brightness and contrast amplify a level
@pytest.mark.parametrize("size", SIZES)
def test_views_of_a_batch_are_those_of_the_workers(
    size: tuple[int, int], colour: ColourConfig | None, levels: int
) -> None:
    plans = drawn(colour)
    assert {one.mirrored for one in plans} == {False, True}
    views = on_device(plans, size)
    workers = torch.stack([one.view(image, size) for one, image in zip(plans, images(), strict=True)])
    difference = (views - workers.float()).abs()
    assert difference.mean() < 0.25  # the kernel of bytes rounds after rows and again after columns
    assert difference.max() <= levels
    with torch.autocast("cpu", torch.bfloat16):  # in which the networks ask for their views
        assert torch.equal(on_device(plans, size), views)


def stored(**settings: Any) -> Image:
    class Stored(Image):
        def dataset(self, split: object) -> list[Sample]:
            return [Sample(image) for image in images()]

    usual: dict[str, Any] = {"image_size": 16, "patch_size": 4, "flip": True, "colour": COLOUR}
    return Stored(ImageConfig(source="folder", root=Path("unused"), **{**usual, **settings}))


def test_a_batch_of_pending_views_becomes_the_training_views_whatever_shares_it() -> None:
    device = stored(augment_on="device")
    pending = [device.loader_view(image, Generator().manual_seed(place)) for place, image in enumerate(images())]
    batch = collated(pending)
    assert isinstance(batch, Pending)
    views = device.to_network(batch)
    for place, image in enumerate(images()):
        alone = device.training_view(image, Generator().manual_seed(place))
        torch.testing.assert_close(views[place], alone, atol=0.03, rtol=0)  # of a level, .017, at a tie


def test_pending_views_keep_the_contract(tmp_path: Path) -> None:
    write_class_images(tmp_path, {"train": 12, "test": 12}, side=20)
    data = ImageConfig(
        source="folder", root=tmp_path, image_size=16, patch_size=4, augment_on="device", views=2, mask_sets=2
    )
    check_modality(Image(data))  # raises what breaks it


SMALL = [
    *("steps=4", "log_every=1", "optim.batch_size=8", "compute.device=cpu", "data.image_size=16", "data.patch_size=4"),
    *("model.size={width: 32, depth: 2, heads: 2}", "data.flip=true", "data.colour={}", "evaluate.enabled=false"),
]
SEVERAL = ["stages=[{predict: views}]", "data.local_views=2", "data.local_size=8", "data.views=2", "data.mask_sets=2"]
ONE = ["model.predictor={width: 16, depth: 1, heads: 2}"]


@pytest.mark.parametrize("objective", [ONE, SEVERAL], ids=["recipe", "several views"])
def test_a_run_learns_the_same_from_views_of_the_device(tmp_path: Path, objective: list[str]) -> None:
    root = write_class_images(tmp_path / "photos", {"train": 24}, side=20)
    losses = {}
    for place, workers in (("workers", 0), ("device", 1)):
        own = [f"data.augment_on={place}", f"compute.workers={workers}", f"data.root={root}", "data.source=folder"]
        run = tmp_path / place
        assert main(["--modality", "image", "--run-dir", str(run), *own, *SMALL, *objective]) == 0
        losses[place] = torch.tensor([step["total_loss"] for step in read_metrics(run)])
    torch.testing.assert_close(losses["device"], losses["workers"], atol=0.02, rtol=0.02)


def test_images_of_several_sizes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_class_images(tmp_path / "photos", {"train": 6}, side=20)
    write_class_images(root / "other", {"train": 3}, side=24)
    for path in (root / "other" / "train").rglob("*.png"):
        path.rename(root / "train" / path.parent.name / f"large{path.name}")
    own = ["data.augment_on=device", f"data.root={root}", "data.source=folder"]
    assert main(["--modality", "image", "--run-dir", str(tmp_path / "run"), *own, *SMALL]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "needs stored images of one size: one has 24 x 24 pixels, the first one 20 x 20" in error
    assert "set data.augment_on=workers" in error
