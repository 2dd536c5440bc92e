"""Views that the device makes of stored images: the same as those that workers make."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import write_class_images
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from jepa.cost.flops import run_flops
from jepa.cost.process_memory import Allocation, process_memory
from jepa.data import batch_bytes
from jepa.data.collate import collated
from jepa.data_check.command import main as check_data
from jepa.launch import main, resolve
from jepa.modality import Sample
from jepa.testing import check_modality
from jepa.training.log import read_metrics
from modalities.image import Image, ImageConfig
from modalities.image.augment import UncroppedView, ViewParameters, _exact_parts, draw, views_on_device
from modalities.image.colour import ColourConfig

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
COLOUR = ColourConfig(probability=0.7, grey=0.3)
SIZES = [(16, 16), (40, 48), (9, 31), (64, 20)]  # smaller, equal and larger than the stored 40 x 48


def images(count: int = 12) -> Tensor:
    """Noise with innermost channels in memory, like decoded images: uint8 [count, 3, 40, 48]."""
    pixels = torch.randint(256, (count, 40, 48, 3), generator=Generator().manual_seed(0))
    return pixels.to(torch.uint8).permute(0, 3, 1, 2)


def drawn(colour: ColourConfig | None, count: int = 12) -> list[ViewParameters]:
    generator = Generator().manual_seed(1)
    return [draw((40, 48), (0.05, 1.0), (0.5, 2.0), True, colour, generator) for _ in range(count)]


def on_device(plans: list[ViewParameters], size: tuple[int, int], device: str = "cpu") -> Tensor:
    parameters = torch.stack([one.as_tensor() for one in plans])
    return views_on_device(images(len(plans)).to(device), parameters.to(device), size).cpu()


@pytest.mark.parametrize("size", SIZES)
def test_crops_of_a_batch_are_those_of_torch_but_for_rounding(size: tuple[int, int]) -> None:
    plans = [*drawn(None), ViewParameters((0, 0, 40, 48), mirrored=False, colours=None)]
    for image, one, view in zip(images(len(plans)), plans, on_device(plans, size), strict=True):
        top, left, height, width = one.box
        part = image[None, :, top : top + height, left : left + width].double()
        exact = interpolate(part, size, mode="bilinear", antialias=True)[0]
        exact = exact.flip(-1) if one.mirrored else exact
        assert (view - exact).abs().max() <= 1 + 1e-3  # half a level after the columns, and after the rows
        assert torch.equal(view, view.round())


@pytest.mark.parametrize(("colour", "levels"), [(None, 1), (COLOUR, 4)])  # brightness and contrast amplify a level
@pytest.mark.parametrize("size", SIZES)
def test_views_of_a_batch_are_those_of_the_workers(
    size: tuple[int, int], colour: ColourConfig | None, levels: int
) -> None:
    assert_as_workers(drawn(colour), size, levels)


def assert_as_workers(plans: list[ViewParameters], size: tuple[int, int], levels: int, device: str = "cpu") -> None:
    assert {one.mirrored for one in plans} == {False, True}
    views = on_device(plans, size, device)
    workers = torch.stack([one.view(image, size) for one, image in zip(plans, images(), strict=True)])
    differences = views - workers.float()
    assert differences.abs().max() <= levels
    assert (differences != 0).float().mean() < 0.03
    assert abs(float(differences.mean())) < 0.02
    with torch.autocast(device, torch.bfloat16):  # in which the networks ask for their views
        assert torch.equal(on_device(plans, size, device), views)


@pytest.mark.parametrize(
    ("device", "precision"), [("cpu", "medium"), pytest.param("cuda", "high", marks=[pytest.mark.gpu, NEEDS_GPU])]
)
def test_views_are_the_same_where_products_round_their_inputs(device: str, precision: str) -> None:
    """`high` is TF32 on GPUs; `medium` is bf16 on CPUs that have it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        for size in SIZES:
            assert_as_workers(drawn(COLOUR), size, 4, device)
    finally:
        torch.set_float32_matmul_precision(before)


def test_both_terms_of_the_weights_keep_products_exact() -> None:
    """Whatever rounds the inputs of a product to bf16 or TF32 changes it by little more than fp32 does."""
    weights, values = torch.rand(50, 64, generator=Generator().manual_seed(2)), images(1)[0, 0].float().T
    weights = weights / weights.sum(dim=1, keepdim=True)
    rounded = [(part.bfloat16().double() @ values[:64].bfloat16().double()) for part in _exact_parts(weights[:, :48])]
    exact = weights[:, :48].double() @ values.double()
    torch.testing.assert_close(sum(rounded), exact, atol=2e-3, rtol=0)


def stored(**settings: Any) -> Image:
    class Stored(Image):
        def dataset(self, split: object) -> list[Sample]:
            return [Sample(image) for image in images()]

    usual: dict[str, Any] = {"image_size": 16, "patch_size": 4, "flip": True, "colour": COLOUR}
    return Stored(ImageConfig(source="folder", root=Path("unused"), **{**usual, **settings}))


def test_a_batch_of_uncropped_views_becomes_the_training_views_whatever_shares_it() -> None:
    device = stored(augment_on="device")
    uncropped = [device.loader_view(image, Generator().manual_seed(place)) for place, image in enumerate(images())]
    batch = collated(uncropped)
    assert isinstance(batch, UncroppedView)
    views = device.to_network(batch)
    for place, image in enumerate(images()):
        alone = device.training_view(image, Generator().manual_seed(place))
        torch.testing.assert_close(views[place], alone, atol=0.03, rtol=0)  # of a level, .017, at a tie


def test_uncropped_views_keep_the_contract(tmp_path: Path) -> None:
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


def test_a_dry_run_counts_the_same_wherever_views_are_made(tmp_path: Path) -> None:
    root = write_class_images(tmp_path, {"train": 12}, side=20)
    found = []
    for place in ("workers", "device"):
        own = [f"data.augment_on={place}", f"data.root={root}", "run_dir=unused"]
        config, modality = resolve("image", {}, [*SMALL, *SEVERAL, *own])
        memory = process_memory(config, modality, Allocation(gpus=0))["ddp"]
        found.append((run_flops(config, modality), memory.weights, batch_bytes(modality, 1)))
    assert found[0][:2] == found[1][:2]
    assert [one[2] for one in found] == [3 * (2 * 16**2 + 2 * 8**2), 4 * (3 * 20**2 + 15 * 4)]


def test_a_dry_run_renders_no_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modalities.image.modality.Scenes", None)
    config, modality = resolve("image", {}, [*SMALL, *ONE, "data.augment_on=device", "run_dir=unused"])
    assert process_memory(config, modality, Allocation(gpus=0))["ddp"].total > 0


def several_sizes(tmp_path: Path, odd: int) -> tuple[Path, list[str]]:
    """60 images of 20 x 20 and `odd` of 24 x 24, which come first, with the settings of a run."""
    root = write_class_images(tmp_path / "photos", {"train": 60}, ("a",), side=20)
    write_class_images(tmp_path / "larger", {"train": odd}, ("a",), side=24)
    for path in (tmp_path / "larger").rglob("*.png"):
        path.rename(root / "train" / "a" / f"0{path.name}")
    return root, ["data.augment_on=device", f"data.root={root}", "data.source=folder", *SMALL]


def test_an_image_of_another_size_is_a_bad_sample_with_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, settings = several_sizes(tmp_path, 1)
    command = ["--modality", "image", "--run-dir", str(tmp_path / "run"), *settings, "steps=8"]
    reason = "it has 24 x 24 pixels, others 20 x 20, and data.augment_on=device needs one size"
    assert main([*command, "data.max_bad_fraction=0"]) == 1  # which a run meets in its first epoch
    capsys.readouterr()
    assert main([*command, "data.max_bad_fraction=0.1"]) == 0
    source, found = (tmp_path / "run" / "bad_files.txt").read_text().splitlines()[0].split("\t")
    assert Path(source).name == "00.png"
    assert found == reason
    capsys.readouterr()
    options = ["--modality", "image", "--samples", "0", "--mosaic", str(tmp_path / "mosaic.png")]
    assert check_data(["check", str(root), *options, "data.augment_on=device"]) == 1
    assert reason in " ".join(capsys.readouterr().out.split())


def test_a_run_may_change_where_views_are_made(tmp_path: Path) -> None:
    _, settings = several_sizes(tmp_path, 0)
    command = ["--modality", "image", "--run-dir", str(tmp_path / "run"), *settings]
    assert main([*command, "data.augment_on=workers"]) == 0
    assert main(command) == 0


def test_images_of_many_sizes_are_refused_as_a_run_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, settings = several_sizes(tmp_path, 8)
    assert main(["--modality", "image", "--run-dir", str(tmp_path / "run"), *settings]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "data.augment_on=device needs stored images of one size, or set data.augment_on=workers" in error
    assert "among the first 16: 20 x 20 pixels, 24 x 24 pixels" in error
    assert read_metrics(tmp_path / "run") == []
