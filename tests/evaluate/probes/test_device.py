"""Probes run on the device of the evaluation."""

from typing import Any

import pytest
import torch

from jepa.evaluate.feature_table import FeatureTable
from jepa.evaluate.features import Features
from jepa.evaluate.probes.attentive import ProbeTraining
from jepa.evaluate.splits import Splits
from jepa.evaluate.tasks import measure
from jepa.modality import Task

CLASSES = Task(label="class", kind="class", classes=("a", "b", "c"))
NUMBERS = Task(label="number", kind="regression")


def table(device: str) -> FeatureTable:
    generator = torch.Generator().manual_seed(0)

    def features(count: int) -> Features:
        labels = torch.arange(count) % 3
        vectors = torch.randn(count, 8, generator=generator) + labels.unsqueeze(1)
        columns: Any = {"jepa": vectors, "random_init": vectors.flip(1)}
        numbers = vectors.sum(dim=1)
        numbers[5] = torch.nan
        return Features(columns, {}, columns, {}, {}, {"class": labels.double(), "number": numbers})

    splits = Splits(features(60), features(30), features(30))
    return FeatureTable(splits, 2, ProbeTraining(1, torch.device(device), bf16=False))


def test_examples_of_probes_are_on_the_device_of_the_evaluation() -> None:
    elsewhere = table("meta")
    for examples in elsewhere.examples(CLASSES, "last", "jepa", projected=False).parts():
        assert examples.features.device.type == examples.labels.device.type == "meta"
    assert len(table("cpu").examples(NUMBERS, "last", "jepa", projected=True).train) == 59


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scores_on_a_gpu_are_those_of_the_cpu() -> None:
    cpu, gpu = table("cpu"), table("cuda")
    for task, probe in [(CLASSES, "knn"), (CLASSES, "linear"), (CLASSES, "low_shot_12"), (NUMBERS, "ridge")]:
        rows = [measure(task, probe, one, lambda: None) for one in (cpu, gpu)]
        assert rows[0]["jepa"] == pytest.approx(rows[1]["jepa"], abs=0.04 if task is CLASSES else 1e-3)
