"""`check_modality` accepts modalities that keep the contract, and explains how others break it."""

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import einops
import numpy as np
import pytest
import torch
from captioned import TINY
from moving import Moving, MovingConfig
from pairs import Pairs, PairsConfig, PairsNetworks
from tiny import Noise, NoiseConfig, PaddedNoise
from torch import Generator, Tensor, nn

from jepa.encoder import PatchEmbedding, TokenEncoder, take
from jepa.launch import resolve
from jepa.masking import BlockMaskConfig, MaskGroups, Masks
from jepa.modality import Modality, Sample, Samples, Split, Task
from jepa.predictor import PredictorConfig
from jepa.testing import ContractError, check_modality
from modalities.image import Image, ImageConfig
from modalities.video import Video, VideoConfig


class Sound(Noise):
    """Noise whose splits differ, as the contract asks; the broken modalities below are variants of it."""

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


class GroupsAlike(Sound):
    """Masks of large batches that repeat: the generator that it receives is the same for all groups."""

    mask_groups = MaskGroups(8)

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        order = torch.rand(batch_size, 24, generator=generator).argsort(dim=1)
        return [Masks(order[:, :6].sort(dim=1).values, order[:, 6:18].sort(dim=1).values.unsqueeze(1))]


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


class OtherOnTheDevice(Sound):
    def loader_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        return (255 * self.training_view(inputs, generator)).to(torch.uint8)


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


class OtherCropsEachTime(Sound):
    def evaluation_views(self, inputs: Tensor) -> Sequence[Tensor]:
        return [inputs, inputs.roll(int(torch.randint(12, ())), dims=2)]


class OnlyFloats(PatchEmbedding):
    """An embedding that a run in bf16 cannot compute."""

    def forward(self, inputs: Tensor, keep: Tensor | None = None) -> Tensor:
        tokens = super().forward(inputs, keep)
        filled = torch.zeros(tokens.shape)
        filled[tokens.isfinite()] = tokens[tokens.isfinite()]
        return filled


class NoMixedPrecision(Sound):
    def embedding(self, dim: int) -> nn.Module:
        return OnlyFloats("b c (h p) (w q) -> b (h w) (c p q)", 8, dim, {"p": 2, "q": 2})


class TokenTwice(Sound):
    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        (masks,) = super().sample_masks(batch_size, generator)
        twice = torch.cat([masks.context, masks.context[:, :1]], dim=1)
        return [replace(masks, context=twice, parts=(twice.shape[1],))]


class Dividing(Sound):
    def evaluation_view(self, inputs: Tensor) -> Tensor:
        return inputs / 0

    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        return inputs


class NumpyViews(Sound):
    def training_view(self, inputs: Tensor, generator: Generator) -> Any:
        return inputs.numpy()


class CrashingInALibrary(Sound):
    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        return einops.rearrange(inputs, "c (h p) w -> (c p) h w", p=7)


class Crashing(Sound):
    def training_view(self, inputs: Tensor, generator: Generator) -> Tensor:
        return inputs[:, :, 99]


class LabelsBeyond(Sound):
    tasks = (Task(label="class", kind="class", classes=("all",)),)


class LabelMissing(Sound):
    tasks = (Task(label="pitch", kind="regression"),)


class LabelNoMap(Sound):
    tasks = (Task(label="class", kind="map"),)


class FlatBaselines(Sound):
    def baselines(self, view: Tensor) -> Mapping[str, Tensor]:
        return {"raw_input": view}


class NoRawInput(Sound):
    def baselines(self, view: Tensor) -> Mapping[str, Tensor]:
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


class WordLabels(Sound):
    def dataset(self, split: Split) -> Samples:
        return Relabelled(super().dataset(split), "even")


class Relabelled(Offset):
    def __init__(self, samples: Samples, odd: Any, even: Any = np.bool_(False)) -> None:  # noqa: B008
        super().__init__(samples, 0.0)
        self.odd, self.even = odd, even

    def __getitem__(self, index: int) -> Sample:
        return replace(self.samples[index], labels={"class": self.odd if index % 2 else self.even})


class BaselineNamedLikeTheEncoder(Sound):
    def baselines(self, view: Tensor) -> Mapping[str, Tensor]:
        return {"raw_input": view.flatten(), "jepa": view.flatten()}


class Nested(Sound):
    def evaluation_view(self, inputs: Tensor) -> Any:
        return {"values": inputs}

    training_view = Modality.training_view


class NumpyPicture(Sound):
    def picture(self, view: Tensor) -> Any:
        return view.numpy()


class Undecorated(NoiseConfig):
    rate: int = 16_000


class NoDataclass(Sound):
    config_type = Undecorated

    def __init__(self, config: NoiseConfig) -> None:
        super().__init__(config)


class Around(TokenEncoder):
    """A custom encoder that keeps the contract; the broken ones below are variants of it."""

    def __init__(self, inner: TokenEncoder) -> None:
        super().__init__()
        self.inner, self.dim = inner, inner.dim

    def outputs(self, inputs: Any, keep: Tensor | None = None, parts: Sequence[int] = ()) -> list[Tensor]:
        return self.inner.outputs(inputs, keep)

    def pool(self, tokens: Tensor, parts: Sequence[int] = (), present: Tensor | None = None) -> dict[str, Tensor]:
        return {"tokens": tokens.mean(dim=1)}

    def fsdp_units(self) -> Iterable[nn.Module]:
        return self.inner.fsdp_units()


class DropsAfterMixing(Around):
    """Drops tokens after they were mixed."""

    def outputs(self, inputs: Any, keep: Tensor | None = None, parts: Sequence[int] = ()) -> list[Tensor]:
        whole = super().outputs(inputs)
        return whole if keep is None else [take(layer, keep) for layer in whole]


class ReturnsOneLayer(Around):
    def outputs(self, inputs: Any, keep: Tensor | None = None, parts: Sequence[int] = ()) -> list[Tensor]:
        return super().outputs(inputs, keep)[-1:]


class PoolsUnderAnotherName(Around):
    def pool(self, tokens: Tensor, parts: Sequence[int] = (), present: Tensor | None = None) -> dict[str, Tensor]:
        return {"mean": tokens.mean(dim=1)}


class CustomEncoder(Sound):
    around: type[Around] = Around

    def encoder(self, config: Any) -> TokenEncoder:
        return self.around(super().encoder(config))


class DroppingTooLate(CustomEncoder):
    around = DropsAfterMixing


class OneLayer(CustomEncoder):
    around = ReturnsOneLayer


class OtherPool(CustomEncoder):
    around = PoolsUnderAnotherName


BROKEN = [
    (OldVersion, ["class: OldVersion was written for version 0 of the contract, and this is version 1"]),
    (ConfigDropped, ["config: modality.config is a NoneType, not the config_type NoiseConfig"]),
    (WrongGrid, ["networks: embedding returns [3, 24, 96] for 3 samples; expected [3, 30, 96]"]),
    (ShortPositions, ["tokens: positions is [24, 1]; expected [24, 2]", "positions: 6 tokens"]),
    (SamePlaces, ["tokens: positions: 4 tokens are at [0.0, 0.0]"]),
    (Unpicklable, ["pickling: worker processes receive a pickled copy of the modality"]),
    (SplitIgnored, ["splits: dataset('train') and dataset('validation') begin with the same", "('test')"]),
    (Restless, ["samples: dataset('train')[0] is another sample when it is read again"]),
    (Tuples, ["samples: dataset('train')[0] is a tuple, not a jepa.modality.Sample"]),
    (LastRowNeverUsed, ["masks: sample_masks never uses 6 of 24 tokens (18, 19, 20, 21, 22, 23)"]),
    (CutToTheShortest, ["masks: sample_masks depends on the batch size: token"]),
    (GroupsAlike, ["masks: sample_masks returns the same masks for every group"]),
    (TargetsSeen, ["masks: sample_masks returns tokens that are context and target of the same sample"]),
    (MasksCounted, ["masks: sample_masks returns other masks for the same generator"]),
    (ViewsCounted, ["training: a run that was killed after 2 of 3 steps and resumed ends with other weights"]),
    (OtherOnTheDevice, ["loader views: loader_view returns uint8 ", "to_network does not return the training views"]),
    (GlobalNoise, ["views: training_view returns another view when it is called again"]),
    (InPlace, ["views: training_view changes the stored inputs"]),
    (Ragged, ["views: evaluation_view returns float32 [2, "]),
    (Dividing, ["views: evaluation_view returns values that are not finite"]),
    (NumpyViews, ["views: training_view returns a ndarray"]),
    (Crashing, ["views: IndexError: index 99 is out of bounds for dimension 2 with size 12 (", "test_check_modality"]),
    (CrashingInALibrary, ["views: EinopsError: ", "/test_check_modality.py, line"]),
    (LabelsBeyond, ["label 'class' of dataset('train')[1] is 1, but the task names 1 classes, 0 to 0"]),
    (LabelMissing, ["labels: task 'pitch' has no label in any of the first 8 samples of a split, which have: class"]),
    (LabelNoMap, ["label 'class' of dataset('train')[0] is []; a map", "[24]"]),
    (FlatBaselines, ["baselines: baselines: 'raw_input' is float32 [2, 8, 12]; expected a vector [F]"]),
    (NoRawInput, ["baselines: baselines has no 'raw_input' to compare with, only: energy"]),
    (FloatPicture, ["picture: picture is float32 [8, 12, 2]; expected None or uint8 [H, W, 3]"]),
    (NoEmbedding, ["networks: NotImplementedError: NoEmbedding needs a method `embedding` or `encoder`"]),
    (ShortEmbedding, ["networks: embedding returns [3, 6, 96] for 3 samples; expected [3, 24, 96]"]),
    (OtherCropsEachTime, ["evaluation views: evaluation_views returns other views when it is called again"]),
    (NoMixedPrecision, ["training: 3 steps fail: RuntimeError: Index put requires the source and dest"]),
    (TokenTwice, ["masks: sample_masks returns indices that do not ascend or occur twice"]),
    (WordLabels, ["label 'class' of dataset('train')[1] is 'even'; expected a number or a tensor"] * 3),
    (BaselineNamedLikeTheEncoder, ["baselines: 'jepa' is the name of another column of the results"]),
    (Nested, ["baselines: the default flattens a tensor, but a view is a dict"]),
    (NumpyPicture, ["picture: picture is a ndarray; expected None or a tensor, uint8 [H, W, 3]"]),
    (NoDataclass, ["a config that is no dataclass: write @dataclass(frozen=True, kw_only=True) over Undecorated"]),
    (DroppingTooLate, ["networks: encoder mixes hidden tokens into those of a context"]),
    (OneLayer, ["networks: encoder.outputs returns 1 layers; expected 3"]),
    (OtherPool, ["networks: encoder.pool returns mean; expected tokens"]),
    (KeepIgnored, ["networks: embedding returns other vectors for kept tokens than for the same tokens among all"]),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "sentences"), BROKEN, ids=[broken.__name__ for broken, _ in BROKEN])
def test_a_broken_contract_is_explained(broken: type[Modality[Any]], sentences: list[str]) -> None:
    with pytest.raises(ContractError) as caught:
        check_modality(broken(NoiseConfig()))
    message = str(caught.value)
    for sentence in sentences:
        assert sentence in message, message
    # Only failures that follow from the same flaw are reported.
    assert len(caught.value.failures) <= len(sentences), message


class Needing(Sound):
    def __init__(self, config: NoiseConfig, scale: float) -> None:
        super().__init__(config)


class Reshaped(Sound):
    def __init__(self, config: NoiseConfig, side: int = 4) -> None:
        super().__init__(replace(config, grid=(side, 6)))
        self.config, self.side = config, side

    def dataset(self, split: Split) -> Samples:
        return Offset(Noise(replace(self.config, grid=(self.side, 6))).dataset(split), float(len(split)))


def test_a_modality_that_its_config_does_not_determine_is_refused() -> None:
    for modality, sentence in [
        (Needing(NoiseConfig(), 2.0), r"construct.* Needing.of.* fails: TypeError: .*'scale'"),
        (Reshaped(NoiseConfig(), 8), r"Reshaped.of\(config, model\).* has another grid"),
    ]:
        with pytest.raises(ContractError, match=sentence):
            check_modality(modality)


def test_a_class_instead_of_an_instance_is_refused() -> None:
    with pytest.raises(ContractError, match=r"expected an instance, not the class: check_modality\(Noise\(config\)\)"):
        check_modality(Noise)  # type: ignore[arg-type]


def test_the_published_masks_of_images_break_the_contract(photos: Path) -> None:
    masking = BlockMaskConfig(legacy="ijepa")
    image = Image(ImageConfig(source="folder", root=photos, image_size=112, patch_size=8, masking=masking))
    with pytest.raises(ContractError) as caught:
        check_modality(image)
    assert "sample_masks never uses" in str(caught.value)


class Padding(PaddedNoise):
    def dataset(self, split: Split) -> Samples:
        return Sound(self.config).dataset(split)


class LabelledPairs(Pairs):
    tasks = Pairs.tasks[:1]


def test_modalities_that_keep_the_contract_pass_and_leave_nothing_behind(tmp_path: Path) -> None:
    state, files = torch.get_rng_state(), set(tmp_path.parent.iterdir())
    check_modality(Sound(NoiseConfig(sets=2, views=2)))
    check_modality(Padding(NoiseConfig()))
    check_modality(Moving(MovingConfig()))
    check_modality(LabelledPairs(PairsConfig()), PairsNetworks(predictor=PredictorConfig(width=16, depth=1, heads=2)))
    assert torch.equal(torch.get_rng_state(), state)
    assert set(tmp_path.parent.iterdir()) == files


class Lazy:
    """An input that a view decodes: it holds an open file, which cannot be copied."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values, self.file = values, sys.__stdout__


class Decoded(Sound):
    """What is stored are arrays in the byte order of another machine, upside down, or whatever decodes them."""

    lazy = False

    def dataset(self, split: Split) -> Samples:
        samples = super().dataset(split)
        return Stored(Relabelled(samples, float("nan")), self.lazy)

    def evaluation_view(self, inputs: Any) -> Tensor:
        values = inputs.values if self.lazy else inputs
        return torch.from_numpy(values.astype(np.float32))

    training_view = Modality.training_view


class Stored(Offset):
    def __init__(self, samples: Samples, lazy: bool) -> None:
        super().__init__(samples, 0.0)
        self.lazy = lazy

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        values = sample.inputs.numpy().astype(">f4")[:, ::-1]
        return replace(sample, inputs=Lazy(values) if self.lazy else values)


class LazilyDecoded(Decoded):
    lazy = True


def test_unusual_modalities_that_keep_the_contract_pass() -> None:
    check_modality(Decoded(NoiseConfig()))
    check_modality(LazilyDecoded(NoiseConfig()))
    check_modality(CustomEncoder(NoiseConfig()))
    for samples in (1, 3):
        check_modality(Sound(NoiseConfig(samples=samples)))
    check_modality(Sound(NoiseConfig(bad=(0,), max_bad_fraction=0.5)))


def test_the_modalities_of_the_framework_pass(photos: Path, tmp_path: Path) -> None:
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
