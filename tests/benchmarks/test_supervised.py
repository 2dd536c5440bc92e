"""The supervised arm sees the labels of the probes, and starts from the encoder of the other arms."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pictures import write_class_images

from benchmarks.supervised import Classifier, probe_training_samples, scored_samples
from jepa.evaluate.reading import evaluated_indices, evaluation_splits
from jepa.launch import resolve
from jepa.modality import Modality, Samples
from jepa.model import JEPA
from jepa.probe.protocol import EvaluateConfig

SETTINGS = [
    *("data.image_size=16", "data.patch_size=2", "model.size={width: 24, depth: 2, heads: 2}"),
    "model.predictor={width: 16, depth: 1, heads: 2}",
]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of which one channel is brighter, by class."""
    return write_class_images(tmp_path_factory.mktemp("colours"), {"train": 30, "val": 15, "test": 12})


def image_modality(root: Path) -> Modality[Any]:
    return resolve("image", {}, [*SETTINGS, "data.source=folder", f"data.root={root}"])[1]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_supervised_training_uses_the_labels_that_train_the_probes(
    split: Literal["test", "validation"], colours: Path
) -> None:
    modality = image_modality(colours)
    config = EvaluateConfig(scored_split=split, train_samples=20, validation_samples=4, test_samples=9)
    samples = evaluation_splits(modality, config)

    def seen(samples: Samples, indices: Any) -> list[bytes]:
        return [samples[index].inputs.numpy().tobytes() for index in indices]

    for own, role, limit in (
        (probe_training_samples(modality, config), "train", 20),
        (scored_samples(modality, config), "test", 9),
    ):
        expected = seen(samples[role], evaluated_indices(len(samples[role]), limit, role))
        assert seen(own, range(len(own))) == expected
        assert len(expected) == limit


def test_supervised_training_starts_from_the_encoder_that_pretraining_starts_from(colours: Path) -> None:
    config, modality = resolve("image", {}, [*SETTINGS, "data.source=folder", f"data.root={colours}"])
    torch.manual_seed(3)
    pretrained = JEPA(config.model, modality).context_encoder
    torch.manual_seed(3)
    supervised = Classifier(config.model, modality).context_encoder
    for ours, theirs in zip(supervised.parameters(), pretrained.parameters(), strict=True):
        assert torch.equal(ours, theirs)
