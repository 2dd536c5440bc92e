"""The check of a modality passes what keeps the contract, and explains what breaks it."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moving import Moving, MovingConfig
from pairs import Pairs, PairsConfig, PairsNetworks
from test_image_text import TINY
from tiny import Noise, NoiseConfig, PaddedNoise
from torch import Generator, Tensor, nn

from jepa.encoder import PatchEmbedding
from jepa.launch import resolve
from jepa.masking import BlockMaskConfig, Masks
from jepa.modality import Modality, Sample, Samples, Split, Task
from jepa.testing import ContractError, check_modality
from modalities.image import Image, ImageConfig
from modalities.video import Video, VideoConfig


class Sound(Noise):
    """Noise whose splits differ, as they should; what breaks the contract below departs from it."""

    tasks: Sequence[Task] = (Task(label="class", kind="class", classes=("even", "odd")),)

    def dataset(self, split: Split) -> Samples:
        return Offset(super().dataset(split), {"train": 0.0, "validation": 1.0, "test": 2.0}[split])


class Offset:
    def __init__(self, samples: Samples, offset: float) -> None:
        self.samples, self.offset = samples, offset

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        return replace(sample, inputs=sample.inputs + self.offset)


@dataclass(frozen=True, kw_only=True)
class LossyConfig(NoiseConfig):
    names: Any = ("a", "b")  # a type that does not say what it holds


class OldVersion(Sound):
    contract = 0


class LossyConfigured(Sound):
    config_type = LossyConfig


class ConfigDropped(Sound):
    def __init__(self, config: NoiseConfig) -> None:
        super().__init__(config)
        self.config = None  # type: ignore[assignment]


class WrongGrid(Sound):
    def __init__(self, config: NoiseConfig) -> None:
        super().__init__(config)
        self.grid = (5, 6)


class SamePlaces(Sound):
    @property
    def positions(self) -> Tensor:
        return super().positions // 2


class ShortPositions(Sound):
    @property
    def positions(self) -> Tensor:
        return super().positions[:, :1]


class Unpicklable(Sound):
    def __init__(self, config: NoiseConfig) -> None:
        super().__init__(config)
        self.scale = lambda values: values


class SplitIgnored(Sound):
    def dataset(self, split: Split) -> Samples:
        return super().dataset("train")


class Restless(Sound):
    def dataset(self, split: Split) -> Samples:
        return Restless.Drawn(super().dataset(split))

    class Drawn(Offset):
        def __init__(self, samples: Samples) -> None:
            super().__init__(samples, 0.0)

        def __getitem__(self, index: int) -> Sample:
            return Sample(torch.randn(2, 8, 12), {"class": 0})


class Tuples(Sound):
    def dataset(self, split: Split) -> Any:
        return [(torch.zeros(2, 8, 12), 0)] * 4


class LastRowNeverUsed(Sound):
    """What the published sampler of I-JEPA does."""

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        context, target = torch.arange(0, 8), torch.arange(8, 18)
        return [Masks(context.expand(batch_size, -1), target.expand(batch_size, 1, -1))]


class CutToTheShortest(Sound):
    """What published collators do: contexts of a batch end where the shortest of them ends."""

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        order = torch.rand(batch_size, 24, generator=generator)
        sizes = torch.randint(4, 21, (batch_size,), generator=generator)
        chosen = order.argsort(dim=1).argsort(dim=1) < sizes.unsqueeze(1)
        shortest = int(chosen.sum(dim=1).min())
        context = torch.stack([row.nonzero().flatten()[:shortest] for row in chosen])
        target = torch.stack([(~row).nonzero().flatten()[-4:] for row in chosen]).unsqueeze(1)
        return [Masks(context, target)]


class TargetsSeen(Sound):
    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        (masks,) = super().sample_masks(batch_size, generator)
        return [replace(masks, target=masks.context.unsqueeze(1))]


class MasksCounted(Sound):
    """The hidden counter of published collators; it starts anew in every process."""

    def __init__(self, config: NoiseConfig) -> None:
        super().__init__(config)
        self.count = itertools.count()

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        return super().sample_masks(batch_size, Generator().manual_seed(next(self.count)))


class ViewsCounted(Sound):
    """A view that is the same twice in a row, but not in another epoch."""

    def __init__(self, config: NoiseConfig) -> None:
        super().__init__(config)
        self.seen = 0

    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        self.seen += 1
        return inputs + (self.seen - 1) // 8


class GlobalNoise(Sound):
    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        return inputs + torch.randn(1)


class InPlace(Sound):
    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        return inputs.add_(1)


class Ragged(Sound):
    def evaluation_view(self, inputs: Tensor) -> Tensor:
        return inputs[:, : 4 if inputs[0, 0, 0] > 0 else 8]

    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        return inputs


class Dividing(Sound):
    def evaluation_view(self, inputs: Tensor) -> Tensor:
        return inputs / 0

    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        return inputs


class NumpyViews(Sound):
    def training_view(self, inputs: Tensor, generator: Generator) -> Any:
        return inputs.numpy()


class Crashing(Sound):
    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        return inputs[:, :, 99]


class LabelsBeyond(Sound):
    tasks = (Task(label="class", kind="class", classes=("all",)),)


class LabelMissing(Sound):
    tasks = (Task(label="pitch", kind="regression"),)


class LabelNoMap(Sound):
    tasks = (Task(label="class", kind="map"),)


class FlatFloors(Sound):
    def floors(self, view: Tensor) -> Mapping[str, Tensor]:
        return {"raw_input": view}


class NoRawFloor(Sound):
    def floors(self, view: Tensor) -> Mapping[str, Tensor]:
        return {"energy": view.square().mean().unsqueeze(0)}


class FloatPicture(Sound):
    def picture(self, view: Tensor) -> Tensor:
        return view.permute(1, 2, 0)


class NoEmbedding(Sound):
    embedding = Modality.embedding


class ShortEmbedding(Sound):
    def embedding(self, dim: int) -> nn.Module:
        return PatchEmbedding("b c (h p) (w q) -> b (h w) (c p q)", 2 * 4 * 4, dim, {"p": 4, "q": 4})


class KeepIgnored(Sound):
    """An embedding that drops tokens before it mixes them."""

    def embedding(self, dim: int) -> nn.Module:
        class Mixing(PatchEmbedding):
            def forward(self, inputs: Tensor, keep: Tensor | None = None) -> Tensor:
                tokens = super().forward(inputs, keep)
                return tokens - tokens.mean(dim=1, keepdim=True)

        return Mixing("b c (h p) (w q) -> b (h w) (c p q)", 8, dim, {"p": 2, "q": 2})


BROKEN = [
    (OldVersion, ["class: OldVersion was written for version 0 of the contract, and this is version 1"]),
    (ConfigDropped, ["config: modality.config is a NoneType, not the config_type NoiseConfig; let __init__ hand"]),
    (WrongGrid, ["networks: embedding makes [3, 24, 96] of 3 samples; it has to be [3, 30, 96]"]),
    (ShortPositions, ["tokens: positions is [24, 1]; the grid (4, 6) needs [24, 2]", "6 tokens lie"]),
    (SamePlaces, ["tokens: positions: 4 tokens lie at [0.0, 0.0], so that no predictor can tell them apart"]),
    (Unpicklable, ["pickling: worker processes receive a pickled copy of the modality, which cannot be made"]),
    (SplitIgnored, ["splits: dataset('train') and dataset('validation') begin with the same", "('test')"]),
    (Restless, ["samples: dataset('train')[0] is another sample when it is read again"]),
    (Tuples, ["samples: dataset('train')[0] is a tuple, not a jepa.modality.Sample"]),
    (LastRowNeverUsed, ["masks: sample_masks never uses 6 of 24 tokens (18, 19, 20, 21, 22, 23), neither as"]),
    (CutToTheShortest, ["masks: sample_masks depends on the size of the batch: token"]),
    (TargetsSeen, ["masks: sample_masks gives tokens that are context and target of a sample at once"]),
    (MasksCounted, ["masks: sample_masks gives other masks for the same generator; all that is random has"]),
    (ViewsCounted, ["training: a run that was killed after 2 of 3 steps and resumed ends with other weights"]),
    (GlobalNoise, ["views: training_view gives another view when it is called again with the same arguments"]),
    (InPlace, ["views: training_view changes the stored inputs, which stay in memory and are used again"]),
    (Ragged, ["views: evaluation_view makes float32 [2, "]),
    (Dividing, ["views: evaluation_view gives values that are not finite"]),
    (NumpyViews, ["views: training_view gives a ndarray; it has to be a tensor, or tuples and dicts of tensors"]),
    (Crashing, ["views: IndexError: index 99 is out of bounds for dimension 2 with size 12 (", "test_contract"]),
    (LabelsBeyond, ["label 'class' of dataset('train')[1] is 1, but the task names 1 classes, 0 to 0"]),
    (LabelMissing, ["labels: task 'pitch' has no label in any of the first 8 samples of a split, which know: class"]),
    (LabelNoMap, ["is []; a map holds a number for every token of the grid, [24]"]),
    (FlatFloors, ["floors: floors: 'raw_input' is float32 [2, 8, 12]; it has to be a vector [F]"]),
    (NoRawFloor, ["floors: floors has no 'raw_input' to compare with, only: energy"]),
    (FloatPicture, ["picture: picture is float32 [8, 12, 2]; it has to be None or uint8 [H, W, 3]"]),
    (NoEmbedding, ["networks: NotImplementedError: NoEmbedding needs a method `embedding`, or an `encoder`"]),
    (ShortEmbedding, ["networks: embedding makes [3, 6, 96] of 3 samples; it has to be [3, 24, 96]"]),
    (KeepIgnored, ["networks: embedding gives other vectors for kept tokens than for the same tokens among all"]),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "sentences"), BROKEN, ids=[broken.__name__ for broken, _ in BROKEN])
def test_what_is_broken_is_explained(broken: type[Modality[Any]], sentences: list[str]) -> None:
    with pytest.raises(ContractError) as caught:
        check_modality(broken(NoiseConfig()))
    told = str(caught.value)
    for sentence in sentences:
        assert sentence in told, told
    # Nothing else is blamed but what follows from the same flaw.
    assert len(caught.value.failures) <= len(sentences), told


def test_a_class_in_place_of_an_instance_is_told() -> None:
    with pytest.raises(ContractError, match=r"an instance is needed, not the class: check_modality\(Noise\(config\)\)"):
        check_modality(Noise)  # type: ignore[arg-type]


def test_the_published_masks_of_images_are_found_to_be_biased(photos: Path) -> None:
    masking = BlockMaskConfig(legacy="ijepa")
    image = Image(ImageConfig(source="folder", root=photos, image_size=112, patch_size=8, masking=masking))
    with pytest.raises(ContractError) as caught:
        check_modality(image)
    assert "sample_masks never uses" in str(caught.value)


class Padding(PaddedNoise):
    def dataset(self, split: Split) -> Samples:
        return Sound(self.config).dataset(split)


class Told(Pairs):
    tasks = Pairs.tasks[:1]


def test_what_keeps_the_contract_passes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    state, files = torch.get_rng_state(), set(tmp_path.parent.iterdir())
    check_modality(Sound(NoiseConfig(sets=2, views=2)))
    check_modality(Padding(NoiseConfig()))
    check_modality(Moving(MovingConfig()))
    check_modality(Told(PairsConfig()), PairsNetworks())
    assert torch.equal(torch.get_rng_state(), state)
    assert set(tmp_path.parent.iterdir()) == files


def test_our_own_pass(photos: Path, tmp_path: Path) -> None:
    check_modality(Image(ImageConfig(source="folder", root=photos, image_size=32, patch_size=8, mask_sets=2, views=2)))
    clips = tmp_path / "train"
    clips.mkdir()
    for number in range(4):
        noise = torch.randint(256, (10, 24, 24, 3), dtype=torch.uint8, generator=Generator().manual_seed(number))
        np.save(clips / f"{number}.npy", noise.numpy())
    check_modality(Video(VideoConfig(source="npy", root=tmp_path, frames=8, image_size=32, patch_size=8)))
    settings = [*TINY, "data.source=scenes", "data.scenes={train: 8, validation: 8, test: 8}"]
    config, captioned = resolve("image-text", {}, settings)
    check_modality(captioned, config.model)
