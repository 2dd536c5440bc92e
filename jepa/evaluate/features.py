"""Frozen features of a split: every sample is read once, for all networks that are compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from jepa.data import open_split, seeded, to_device
from jepa.encoder import Encoder, PatchEmbedding
from jepa.evaluate.protocol import EvaluateConfig
from jepa.modality import BadSampleError, Label, Modality, Sample, Samples, Split, Task
from jepa.train import ComputeConfig

Column = Literal["jepa", "random_init", "raw_input"]
COLUMNS: tuple[Column, ...] = ("jepa", "random_init", "raw_input")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_TOKENS_AT_ONCE = 8_192  # bounds memory whatever the token grid, and fits into caches
_LAYERS = 4


@dataclass(frozen=True)
class Features:
    """What the networks make of the n samples of a split, and what is known about these.

    last: mean over the tokens of the last layer [n, D], of the raw input the modality's vector [n, F].
    last4: means of the last four layers, each layer-normed, side by side [n, 4D]; the raw input has no layers.
    tokens: last layer of the first m samples [m, N, D], of the raw input the values of its patches if it has some.
    labels: [n], of maps [n, N]; not a number where not known.
    """

    last: Mapping[Column, Tensor]
    last4: Mapping[Column, Tensor]
    tokens: Mapping[Column, Tensor]
    labels: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.last["jepa"])


@dataclass(frozen=True)
class Extractor:
    """Reads samples of a modality and encodes them. on_batch: called after each batch with what could not be read."""

    modality: Modality[Any]
    encoders: Mapping[Column, Encoder]  # jepa, random_init
    tasks: Sequence[Task]
    batch_size: int
    compute: ComputeConfig
    on_batch: Callable[[list[tuple[str, str]]], None]

    @property
    def samples_at_once(self) -> int:
        """Samples of a batch."""
        return max(1, min(self.batch_size, _TOKENS_AT_ONCE // len(self.modality.positions)))

    @property
    def _loaders(self) -> int:
        return self.compute.loaders(next(iter(self.encoders.values())).norm.weight.device)

    @torch.inference_mode()
    def extract(self, samples: Samples, indices: Sequence[int], token_samples: int) -> Features:
        """Features of the samples of these indices, with the tokens of the first `token_samples`."""
        views = _Views(self.modality, samples, indices, self.tasks)
        loader = DataLoader(
            views,
            batch_size=self.samples_at_once,
            num_workers=self._loaders if len(indices) > self.samples_at_once else 0,
            collate_fn=_collate,
            worker_init_fn=_start_worker,
        )
        gathered = _Gathered(token_samples)
        for batch in loader:
            if batch.count:
                self._encode(batch, gathered)
            self.on_batch(batch.bad)
        return gathered.features()

    def _encode(self, batch: "_Batch", gathered: "_Gathered") -> None:
        gathered.add("last", "raw_input", batch.raw)
        for label, values in batch.labels.items():
            gathered.add("labels", label, values)
        for column, encoder in self.encoders.items():
            device = encoder.norm.weight.device
            with torch.autocast(device.type, torch.bfloat16, enabled=self.compute.precision == "bf16"):
                layers = [layer.float() for layer in encoder.layers(to_device(batch.inputs, device))[-_LAYERS:]]
            gathered.add("last", column, layers[-1].mean(dim=1))
            normed = [F.layer_norm(layer, layer.shape[-1:]).mean(dim=1) for layer in layers]
            gathered.add("last4", column, torch.cat(normed, dim=1))
            gathered.add_tokens(column, layers[-1])
        embedding = self.encoders["jepa"].embedding
        if isinstance(embedding, PatchEmbedding):
            gathered.add_tokens("raw_input", embedding.patches(batch.inputs))


def subset(count: int, limit: int, split: Split) -> list[int]:
    """The samples of a split that are looked at, in random order that is always the same."""
    order: list[int] = torch.randperm(count, generator=seeded("evaluation", split))[:limit].tolist()
    return order


@dataclass(frozen=True)
class Chosen:
    """Some samples of a data set."""

    samples: Samples
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.samples[self.indices[index]]


def roles(modality: Modality[Any], config: EvaluateConfig) -> dict[Split, Samples]:
    """Samples that teach the probes (`train`), choose their settings (`validation`) and are reported on (`test`).

    These are the splits of the same names, unless the validation split is scored.
    """
    if config.scored_split == "test":
        return {split: open_split(modality, split) for split in SPLITS}
    train = open_split(modality, "train")
    order = subset(len(train), len(train), "train")
    choosing = min(config.validation_samples, len(train) // 5)
    return {
        "train": Chosen(train, order[choosing:]),
        "validation": Chosen(train, order[:choosing]),
        "test": open_split(modality, "validation"),
    }


class _Gathered:
    """Parts of the features of a split, batch by batch."""

    def __init__(self, token_samples: int) -> None:
        self.token_samples = token_samples
        self.parts: dict[str, dict[str, list[Tensor]]] = {"last": {}, "last4": {}, "tokens": {}, "labels": {}}

    def add(self, kind: str, name: str, values: Tensor) -> None:
        self.parts[kind].setdefault(name, []).append(values.float().cpu())

    def add_tokens(self, name: str, tokens: Tensor) -> None:
        present = sum(len(part) for part in self.parts["tokens"].get(name, []))
        if present < self.token_samples:
            self.add("tokens", name, tokens[: self.token_samples - present])

    def features(self) -> Features:
        whole: dict[str, Any] = {
            kind: {name: torch.cat(parts) for name, parts in named.items()} for kind, named in self.parts.items()
        }
        return Features(**whole)


@dataclass(frozen=True)
class _Batch:
    count: int
    inputs: Any
    raw: Tensor
    labels: dict[str, Tensor]
    bad: list[tuple[str, str]]


class _Views(Dataset[Any]):
    """Evaluation view, raw features and labels of a sample; of one that cannot be read source and reason."""

    def __init__(
        self, modality: Modality[Any], samples: Samples, indices: Sequence[int], tasks: Sequence[Task]
    ) -> None:
        self.modality, self.samples, self.indices, self.tasks = modality, samples, indices, tasks
        self.token_count = len(modality.positions)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Any:
        try:
            sample = self.samples[self.indices[place]]
        except BadSampleError as error:
            return error
        view = self.modality.evaluation_view(sample.inputs)
        labels = {task.label: self._label(sample.labels, task) for task in self.tasks}
        return view, self.modality.raw_features(view).float(), labels

    def _label(self, labels: Mapping[str, Label], task: Task) -> Tensor:
        if task.label in labels:
            return torch.as_tensor(labels[task.label], dtype=torch.float32)
        return torch.full((self.token_count,) if task.kind == "map" else (), torch.nan)


def _collate(items: Sequence[Any]) -> _Batch:
    bad = [(item.source, item.reason) for item in items if isinstance(item, BadSampleError)]
    good = [item for item in items if not isinstance(item, BadSampleError)]
    inputs, raw, labels = default_collate(good) if good else ((), torch.empty(0), {})
    return _Batch(len(good), inputs, raw, labels, bad)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
