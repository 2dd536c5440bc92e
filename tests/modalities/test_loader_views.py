"""Views on their way from the workers to the networks."""

from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import default_collate

from jepa.data.collate import collated
from jepa.modality import Modality
from jepa.testing.compare import describe
from modalities.image import Image, ImageConfig
from modalities.image_text.config import ImageTextConfig
from modalities.image_text.modality import ImageText
from modalities.storage.captioned import CaptionedImage
from modalities.video import Video, VideoConfig

PICTURE = torch.randint(256, (50, 60, 3), dtype=torch.uint8, generator=Generator().manual_seed(0)).permute(2, 0, 1)
STORED: list[tuple[Modality[Any], Any]] = [
    (Image(ImageConfig(image_size=(32, 48), patch_size=8, flip=True)), PICTURE),
    (Video(VideoConfig(image_size=32, patch_size=8, frames=4)), PICTURE.repeat(6, 1, 1, 1)),
    (ImageText(ImageTextConfig()), CaptionedImage(PICTURE, ("a red cube", "a blue ball"))),
]


@pytest.mark.parametrize(("modality", "stored"), STORED, ids=lambda one: type(one).__name__)
def test_pixels_leave_the_loader_as_bytes_and_become_training_views_on_the_device(
    modality: Modality[Any], stored: Any
) -> None:
    seeds = range(3)
    loaded = collated([modality.loader_view(stored, Generator().manual_seed(seed)) for seed in seeds])
    views = default_collate([modality.training_view(stored, Generator().manual_seed(seed)) for seed in seeds])
    assert tree_leaves(loaded)[0].dtype == torch.uint8
    alone = modality.loader_view(stored, Generator().manual_seed(1))
    assert all(map(torch.equal, tree_leaves(alone), (leaf[1] for leaf in tree_leaves(loaded))))
    assert describe(modality.example_loader_view()) == describe(modality.loader_view(stored, Generator()))
    for batch in (loaded, views):
        for one, other in zip(tree_leaves(modality.to_network(batch)), tree_leaves(views), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [Image, Video])
def test_every_view_has_the_pixel_statistics_of_the_settings(kind: Any) -> None:
    halves: Any = {"image_size": 32, "patch_size": 8, "pixel_mean": (0.5,) * 3, "pixel_std": (0.25,) * 3}
    modality = kind(kind.config_type(**halves))
    stored = PICTURE if kind is Image else PICTURE.repeat(16, 1, 1, 1)
    loaded = modality.loader_view(stored, Generator().manual_seed(0))
    expected = (loaded / 255 - 0.5) / 0.25
    torch.testing.assert_close(modality.training_view(stored, Generator().manual_seed(0)), expected)
    torch.testing.assert_close(modality.to_network(loaded[None])[0], expected)
    for view in modality.evaluation_views(stored):
        torch.testing.assert_close(view, (modality.picture(view).movedim(-1, 0) / 255 - 0.5) / 0.25)


def test_a_clip_in_memory_has_no_times_so_fps_takes_its_frames_one_by_one() -> None:
    clip = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    plain, timed = (Video(VideoConfig(image_size=32, patch_size=8, frames=4, fps=fps)) for fps in (None, 4.0))
    assert torch.equal(timed.evaluation_view(clip), plain.evaluation_view(clip))
    seed = Generator().manual_seed
    assert torch.equal(timed.training_view(clip, seed(0)), plain.training_view(clip, seed(0)))


def test_a_subclass_that_changes_training_views_alone_gets_them_from_the_loader() -> None:
    class Brighter:
        def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
            return super().training_view(inputs, generator) + 1  # type: ignore[misc,no-any-return]

    class Bright(Brighter, Image):
        pass

    class Darker(Bright):
        def loader_view(self, inputs: Tensor, generator: Generator) -> Tensor:
            return inputs // 2

    bright = Bright(ImageConfig(image_size=32, patch_size=8))
    view = bright.loader_view(PICTURE, Generator().manual_seed(0))
    assert torch.equal(bright.to_network(view), bright.training_view(PICTURE, Generator().manual_seed(0)))
    assert torch.equal(Darker(bright.config).loader_view(PICTURE, Generator()), PICTURE // 2)
