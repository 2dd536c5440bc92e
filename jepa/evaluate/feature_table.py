"""The features of all splits, as examples for probes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from jepa.evaluate.features import Column, Features
from jepa.evaluate.labels import check_labels
from jepa.evaluate.probes.attentive import ProbeTraining
from jepa.evaluate.probes.linear import on_principal_axes
from jepa.evaluate.splits import Examples, Splits
from jepa.modality import Task
from jepa.probe.missing import existing
from jepa.probe.protocol import FunctionTask

Layer = Literal["last", "last4", "pooled", "tokens"]


@dataclass
class FeatureTable:
    """Features of all splits; principal axes are computed once. functions: custom metrics by name.

    probes: folder that keeps the attentive probes of the trained encoder, if any.
    """

    features: Splits[Features]
    low_shot_draws: int
    training: ProbeTraining
    functions: Mapping[str, FunctionTask] = field(default_factory=dict)
    projected: dict[tuple[Layer, Column], Splits[Tensor]] = field(default_factory=dict)
    probes: Path | None = None

    def examples(self, task: Task, layer: Layer, column: Column, projected: bool) -> Splits[Examples]:
        """Labelled samples, or labelled tokens of maps, on the device of the probes.

        projected: onto principal axes, for linear probes.
        """
        if layer in ("last4", "pooled") and column not in getattr(self.features.train, layer):
            layer = "last"  # a baseline has neither, so both rows show the same number
        labels, key = self.labels(task), (layer, column)
        all_known = bool(labels.train.isfinite().all())
        if projected and all_known and key in self.projected:
            return self.projected[key].pair(_labelled, labels)
        features = self.features.map(lambda one: getattr(one, layer)[column].flatten(0, -2).to(self.training.device))
        if projected and all_known:
            features = self.projected[key] = on_principal_axes(features)
        examples = features.pair(_labelled, labels)
        if not projected or all_known:
            return examples
        # A part of the samples has principal axes of its own, which the ridge probe relies on.
        own = on_principal_axes(examples.map(lambda split: split.features))
        return own.pair(Examples, examples.map(lambda split: split.labels))

    def sequences(self, task: Task, column: Column) -> Splits[Examples]:
        """Token sequences of the labelled samples that keep them."""
        return self.features.map(lambda split: split.sequences[column]).pair(_labelled, self.sequence_labels(task))

    def sequence_labels(self, task: Task) -> Splits[Tensor]:
        """Labels of the samples that keep their token sequences: [s]."""
        return self._labels(task, "sequences")

    def labels(self, task: Task) -> Splits[Tensor]:
        """Labels [n]; of maps [m, N] for samples that keep tokens. Raises UnmeasurableError if there are too few.

        Tokens that a sample lacks have no label in maps.
        """
        return self._labels(task, "tokens" if task.kind == "map" else "last")

    def _labels(self, task: Task, kind: str) -> Splits[Tensor]:
        """Labels of the samples that keep features of this kind."""
        labels = self.features.map(lambda split: split.labels[task.label][: len(getattr(split, kind)["jepa"])])
        if kind == "tokens":
            labels = labels.pair(_of_tokens, self.features)
        check_labels(task, labels)
        return labels

    def columns(self, layer: Layer) -> list[Column]:
        """Columns that have features of this layer."""
        features = self.features.train
        return [column for column in features.columns if layer != "tokens" or column in features.tokens]


def _of_tokens(labels: Tensor, features: Features) -> Tensor:
    """Labels of maps [m, N], NaN where the sample lacks the token."""
    valid = existing(features.tokens["jepa"])
    return labels if valid is None else labels.masked_fill(~valid, torch.nan)


def _labelled(features: Tensor, labels: Tensor) -> Examples:
    """The examples with a label, on the device of the features; not copied if all have one."""
    labels = labels.flatten()
    known = labels.isfinite()
    if not known.all():
        features, labels = features[known.to(features.device)], labels[known]
    return Examples(features, labels.to(features.device))
