"""Frozen features of a split: every sample is read once, for all networks that are compared."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from jepa.data import to_device
from jepa.encoder import PatchEmbedding, TokenEncoder, mean_over
from jepa.evaluate.reading import ViewBatch, Views, view_batches
from jepa.modality import Modality, Samples, Task
from jepa.training.config import ComputeConfig

Column = str  # of the table of results: an encoder's name or that of a floor
ENCODERS: tuple[Column, ...] = ("jepa", "random_init")
_TOKENS_AT_ONCE = 8_192  # bounds memory whatever the token grid, and fits into caches
_LAYERS = 4


@dataclass(frozen=True)
class Features:
    """What the networks make of the n samples of a split, and what is known about these. Vectors are means over views.

    Means over tokens are of those that a sample has; what stands for the others is among the tokens.

    last: mean over the tokens of the last layer [n, D], of a floor the modality's vector [n, F].
    last4: means of the last four layers, each layer-normed, side by side [n, 4D]; a floor has no layers.
    tokens: last layer of the first m samples, first view [m, N, D], of the raw input the values of its patches.
    sequences: last layer of the first s samples, layer-normed bf16 [s, V, M, D], M means over neighbours of N tokens.
    labels: [n], of maps [n, N]; not a number where not known.
    """

    last: Mapping[Column, Tensor]
    last4: Mapping[Column, Tensor]
    tokens: Mapping[Column, Tensor]
    sequences: Mapping[Column, Tensor]
    labels: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.last["jepa"])

    @property
    def columns(self) -> tuple[Column, ...]:
        """Trained, untrained, and the floors in the modality's order."""
        return (*ENCODERS, *(name for name in self.last if name not in ENCODERS))


@dataclass(frozen=True)
class TokenBudget:
    """How much of the tokens stays in memory.

    tokens: samples of which all of them stay, of the first view. sequences: samples of which they stay for attentive
    probes, averaged by `pooling` [M, N] where that is not None, of the first view or, with `every_view`, of all.
    """

    tokens: int = 0
    sequences: int = 0
    pooling: Tensor | None = None
    every_view: bool = False


@dataclass(frozen=True)
class Extractor:
    """Reads samples of a modality and encodes them. on_batch: called after each batch with what could not be read."""

    modality: Modality[Any]
    encoders: Mapping[Column, TokenEncoder]  # jepa, random_init
    tasks: Sequence[Task]
    batch_size: int
    compute: ComputeConfig
    on_batch: Callable[[list[tuple[str, str]]], None]

    @property
    def samples_at_once(self) -> int:
        """Samples of a batch."""
        return samples_at_once(self.modality, self.batch_size)

    @torch.inference_mode()
    def extract(self, samples: Samples, indices: Sequence[int], kept: TokenBudget) -> Features:
        """Features of the samples of these indices, with tokens of the first ones."""
        views = Views(self.modality, samples, indices, self.tasks)
        loaders = self.compute.loaders(next(iter(self.encoders.values())).device)
        gathered = _Gathered(kept)
        for batch in view_batches(views, self.samples_at_once, loaders):
            if batch.count:
                self._encode(batch, gathered)
            self.on_batch(batch.bad)
        return gathered.features()

    def _encode(self, batch: ViewBatch, gathered: "_Gathered") -> None:
        for label, values in batch.labels.items():
            gathered.add("labels", label, values)
        for column, encoder in self.encoders.items():
            seen = [self._layers(encoder, view) for view in batch.views]  # of each view the last four [B, N, D]
            there = [grid_present(self.modality, encoder, view) for view in batch.views]  # [B, N] each, or None
            pooled = [mean_over(layers[-1], present) for layers, present in zip(seen, there, strict=True)]
            normed = [_normed_means(layers, present) for layers, present in zip(seen, there, strict=True)]
            gathered.add("last", column, torch.stack(pooled).mean(dim=0))
            gathered.add("last4", column, torch.stack(normed).mean(dim=0))
            gathered.add_tokens(column, seen[0][-1])
            gathered.add_sequences(column, [layers[-1] for layers in seen])
        for floor, vectors in batch.floors.items():
            gathered.add("last", floor, vectors)
        embedding = getattr(self.encoders["jepa"], "embedding", None)
        if isinstance(embedding, PatchEmbedding):
            gathered.add_tokens("raw_input", embedding.patches(batch.views[0]))

    def _layers(self, encoder: TokenEncoder, view: Any) -> list[Tensor]:
        device = encoder.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.compute.precision == "bf16"):
            return [layer.float() for layer in grid_layers(self.modality, encoder, view)[-_LAYERS:]]


def grid_layers(modality: Modality[Any], encoder: TokenEncoder, views: Any) -> list[Tensor]:
    """Layers of the tokens that lie on the grid, of several streams those of the first: [B, ...] -> [B, N, D] each.

    What is of further streams is not looked at.
    """
    views = to_device(views, encoder.device)
    if not modality.streams:
        return encoder.layers(views)
    first = modality.streams[0]
    keep = first.tokens.to(encoder.device).expand(len(tree_leaves(views)[0]), -1)
    return [layer[:, : math.prod(modality.grid)] for layer in encoder.layers(views, keep, first.parts)]


def grid_present(modality: Modality[Any], encoder: TokenEncoder, views: Any) -> Tensor | None:
    """Which of the tokens of `grid_layers` there are: [B, ...] -> bool [B, N], None for all."""
    present = encoder.present(to_device(views, encoder.device))
    return None if present is None else present[:, : math.prod(modality.grid)]


def samples_at_once(modality: Modality[Any], batch_size: int) -> int:
    """Samples of a batch whose tokens fit into memory at once."""
    return max(1, min(batch_size, _TOKENS_AT_ONCE // len(modality.positions)))


def _normed_means(layers: Sequence[Tensor], present: Tensor | None) -> Tensor:
    return torch.cat([mean_over(F.layer_norm(layer, layer.shape[-1:]), present) for layer in layers], dim=1)


class _Gathered:
    """Parts of the features of a split, batch by batch."""

    def __init__(self, kept: TokenBudget) -> None:
        self.kept = kept
        kinds = ("last", "last4", "tokens", "sequences", "labels")
        self.parts: dict[str, dict[str, list[Tensor]]] = {kind: {} for kind in kinds}

    def add(self, kind: str, name: str, values: Tensor) -> None:
        self.parts[kind].setdefault(name, []).append(values.float().cpu())

    def add_tokens(self, name: str, tokens: Tensor) -> None:
        present = sum(len(part) for part in self.parts["tokens"].get(name, []))
        if present < self.kept.tokens:
            self.add("tokens", name, tokens[: self.kept.tokens - present])

    def add_sequences(self, name: str, views: Sequence[Tensor]) -> None:
        parts = self.parts["sequences"].setdefault(name, [])
        missing = self.kept.sequences - sum(map(len, parts))
        if missing <= 0:
            return
        tokens = torch.stack([view[:missing] for view in (views if self.kept.every_view else views[:1])], dim=1)
        if self.kept.pooling is not None:
            tokens = self.kept.pooling.to(tokens.device) @ tokens
        parts.append(F.layer_norm(tokens, tokens.shape[-1:]).bfloat16().cpu())

    def features(self) -> Features:
        whole: dict[str, Any] = {
            kind: {name: torch.cat(parts) for name, parts in named.items() if parts}
            for kind, named in self.parts.items()
        }
        return Features(**whole)
