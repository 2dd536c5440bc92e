"""The samples of the probe during training: which they are, how processes share them, and why there may be none."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_leaves

from jepa.config import ConfigError
from jepa.console import CONSOLE, shown
from jepa.data import DataError, open_split
from jepa.data.bad_files import described
from jepa.data.cache import size_of
from jepa.distributed import World
from jepa.evaluate.reading import evaluated_indices, known_labels, label_of
from jepa.modality import BadSampleError, Modality, Samples, Split, Task
from jepa.training.config import Config

PROBED: tuple[Split, Split] = ("train", "validation")
_SEARCHED = 50  # times as many samples are searched for labels as are needed


def announce_probe(config: Config[Any, Any], modality: Modality[Any], is_asked: bool) -> None:
    """Print why a run has no probe during training; raises ConfigError if the user asked for one, and DataError."""
    if config.probe.every and (reason := obstacle(config, modality)):
        if is_asked:
            raise ConfigError(f"probe.every: {reason}; set probe.every=0")
        CONSOLE.print(shown(f"no probe during training: {reason}"))


def obstacle(config: Config[Any, Any], modality: Modality[Any]) -> str:
    """Why there can be no probe, empty if there can; raises DataError."""
    try:
        task = class_task(modality)
    except (OSError, ValueError) as error:
        raise DataError(f"data: {error}") from error
    if task is None:
        return "the data has no labels that are classes"
    for split in PROBED:
        if not len(open_split(modality, split)):
            return f"the {split} split has no samples"
        if not probed_indices(config, modality, task, split):
            return f"no {split} sample has a label '{task.label}'"
    return ""


def class_task(modality: Modality[Any]) -> Task | None:
    """The task of the probe: the first one whose labels are classes."""
    return next((task for task in modality.tasks if task.kind == "class"), None)


def probed_indices(config: Config[Any, Any], modality: Modality[Any], task: Task, split: Split) -> list[int]:
    """The probed samples of a split: those that evaluation takes first, without any that are known to lack a label."""
    samples, found = open_split(modality, split), list[int]()
    limit = config.probe.train_samples if split == "train" else config.probe.validation_samples
    for count in (limit, _SEARCHED * limit):
        order = evaluated_indices(len(samples), count, split)
        labels = known_labels(samples, order, task)
        if labels is None:
            return order[:limit]
        found = [index for index, is_known in zip(order, labels.isfinite().tolist(), strict=True) if is_known]
        if len(found) >= min(limit, len(samples)):
            break
    return found[:limit]


class Share(NamedTuple):
    """A process's part of the samples. longest: length of the longest part of any process."""

    indices: Sequence[int]
    longest: int


def share_of(indices: Sequence[int], world: World) -> Share:
    """The part of the samples that this process embeds."""
    count = len(indices)
    first, end = (count * rank // world.size for rank in (world.rank, world.rank + 1))
    return Share(indices[first:end], math.ceil(count / world.size))


@dataclass
class Views:
    """Views and labels of samples, which stay in memory up to a limit, so that they are decoded once."""

    modality: Modality[Any]
    task: Task
    bytes_left: float
    kept: dict[tuple[Split, int], tuple[Any, Tensor]] = field(default_factory=dict)

    def read(self, split: Split, indices: Sequence[int]) -> tuple[list[tuple[Any, Tensor]], list[tuple[str, str]]]:
        """View and label of each readable sample; source and reason of each other one."""
        samples, items, bad = open_split(self.modality, split), [], []
        for index in indices:
            try:
                items.append(self.kept.get((split, index)) or self._decoded(samples, split, index))
            except BadSampleError as error:
                bad.append(described(error, samples, index))
        return items, bad

    def _decoded(self, samples: Samples, split: Split, index: int) -> tuple[Any, Tensor]:
        sample = samples[index]
        item = self.modality.evaluation_view(sample.inputs), label_of(sample.labels, self.task, 0)
        size = sum(map(size_of, tree_leaves(item)))
        if size <= self.bytes_left:
            self.kept[split, index] = item
            self.bytes_left -= size
        return item
