"""Frozen features of a split: each sample is read once, for all encoders and baselines."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from jepa.data import to_device
from jepa.encoder import PatchEmbedding, TokenEncoder, mean_tokens
from jepa.evaluate.reading import ViewBatch, ViewDataset, batches, collate_views
from jepa.masking import Masks
from jepa.modality import Modality, Samples, Task
from jepa.probe.averages import averaged
from jepa.probe.missing import nan_unless
from jepa.training.config import ComputeConfig
from jepa.weights.families.encoder import Encoded, FamilyEncoder

Column = str  # of the results: name of an encoder or of a baseline
ENCODERS: tuple[Column, ...] = ("jepa", "random_init")
_TOKENS_AT_ONCE = 8_192  # per batch; bounds memory for any grid and fits into caches
_TOKENS_AT_ONCE_ON_GPU = 65_536  # ten layers of ViT-g in fp32 take 4 GB
LAST_LAYERS = 4


@dataclass(frozen=True)
class Features:
    """Features and labels of the n samples of a split. Vectors are means over views, and over the valid tokens.

    last: token mean of the last layer [n, D]; for a baseline, the modality's vector [n, F].
    pooled: the encoder's own pooled vector [n, F], such as a class token; none for baselines, and encoders without one.
    last4: token means of the last four layers, each layer-normed, concatenated [n, 4D]; none for baselines.
    tokens: last layer of the first m samples, first view [m, N, D], NaN where a sample lacks the token; for
    `raw_input`, the values of the patches.
    sequences: last layer of the first s samples, pooled to M tokens, perhaps layer-normed, bf16 [s, V, M, D], NaN where
    a sample lacks the token.
    labels: [n], or [n, N] for maps; NaN where unknown.
    """

    last: Mapping[Column, Tensor]
    pooled: Mapping[Column, Tensor]
    last4: Mapping[Column, Tensor]
    tokens: Mapping[Column, Tensor]
    sequences: Mapping[Column, Tensor]
    labels: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.last["jepa"])

    @property
    def columns(self) -> tuple[Column, ...]:
        """Trained, untrained, and the baselines in the modality's order."""
        return (*ENCODERS, *(name for name in self.last if name not in ENCODERS))


@dataclass(frozen=True)
class TokenBudget:
    """How many samples keep their tokens in memory.

    tokens: samples that keep all tokens of the first view. sequences: samples that keep tokens for attentive probes,
    averaged by `pooling` [M, N] unless that is None, and layer-normed if `normed`, of the first view or, with
    `every_view`, of all views.
    """

    tokens: int = 0
    sequences: int = 0
    pooling: Tensor | None = None
    every_view: bool = False
    normed: bool = True


@dataclass(frozen=True)
class Extractor:
    """Reads and encodes samples. on_batch: called after each batch with its unreadable samples."""

    modality: Modality[Any]
    encoders: Mapping[Column, TokenEncoder]  # jepa, random_init
    tasks: Sequence[Task]
    batch_size: int
    compute: ComputeConfig
    on_batch: Callable[[list[tuple[str, str]]], None]

    @torch.inference_mode()
    def extract(self, samples: Samples, indices: Sequence[int], budget: TokenBudget) -> Features:
        """Features of the samples at these indices, with tokens of the first ones."""
        views = ViewDataset(self.modality, samples, indices, self.tasks)
        loaders, buffer = self.compute.loaders(self.device), _FeatureBuffer(budget)
        for batch in batches(views, self.at_once, loaders, collate_views):
            if batch.count:
                # Copied once, although every encoder reads them.
                self._encode(replace(batch, views=to_device(batch.views, self.device)), buffer)
            self.on_batch(batch.bad)
        return buffer.features()

    @property
    def device(self) -> torch.device:
        """Where the encoders are."""
        return next(iter(self.encoders.values())).device

    @property
    def at_once(self) -> int:
        """Samples of a batch."""
        return samples_at_once(self.modality, self.batch_size, on_gpu=self.device.type == "cuda")

    def _encode(self, batch: ViewBatch, buffer: "_FeatureBuffer") -> None:
        for label, values in batch.labels.items():
            buffer.add("labels", label, values)
        for column, encoder in self.encoders.items():
            views = [self._encoded(encoder, view) for view in batch.views]
            encoded = [layers for layers, _ in views]  # last four layers of each view, [B, N, D]
            own = [vector for _, vector in views if vector is not None]  # [B, F] of each view
            valid = [grid_valid(self.modality, encoder, view) for view in batch.views]  # [B, N] each, or None
            pooled = [mean_tokens(layers[-1], mask) for layers, mask in zip(encoded, valid, strict=True)]
            normed = [joined_means(layers, mask) for layers, mask in zip(encoded, valid, strict=True)]
            buffer.add("last", column, torch.stack(pooled).mean(dim=0))
            buffer.add("last4", column, torch.stack(normed).mean(dim=0))
            if own:
                buffer.add("pooled", column, torch.stack(own).mean(dim=0))
            last = [nan_unless(mask, layers[-1]) for layers, mask in zip(encoded, valid, strict=True)]
            buffer.add_tokens(column, last[0])
            buffer.add_sequences(column, last)
        for baseline, vectors in batch.baselines.items():
            buffer.add("last", baseline, vectors)
        if isinstance(self._embedding, PatchEmbedding):
            buffer.add_tokens("raw_input", self._embedding.patches(batch.views[0]))

    @cached_property
    def _embedding(self) -> Any:
        """The module that cuts inputs into patches, if there is one; encoders of other families have their own."""
        encoder = self.encoders["jepa"]
        return self.modality.embedding(1) if isinstance(encoder, FamilyEncoder) else getattr(encoder, "embedding", None)

    def _encoded(self, encoder: TokenEncoder, view: Any) -> Encoded:
        kind = encoder.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.compute.uses_bf16(kind)):
            if isinstance(encoder, FamilyEncoder):
                layers, pooled = encoder.encode(view, LAST_LAYERS)
            else:
                layers, pooled = grid_layers(self.modality, encoder, view, LAST_LAYERS), None
            return Encoded([layer.float() for layer in layers], None if pooled is None else pooled.float())


def grid_layers(modality: Modality[Any], encoder: TokenEncoder, views: Any, count: int = 1) -> list[Tensor]:
    """The last `count` layers of the tokens on the grid: [B, ...] -> [B, N, D] each.

    With several streams, only the first is encoded.
    """
    views = to_device(views, encoder.device)
    layers = encoder.last_layers(views, _first_stream(modality, views, encoder.device), count)
    return [layer[:, : math.prod(modality.grid)] for layer in layers]


def pooled_grid(modality: Modality[Any], encoder: TokenEncoder, views: Any) -> Tensor:
    """Mean of the last layer of `grid_layers`, by the encoder's forward pass, as FSDP needs: [B, ...] -> [B, D]."""
    views = to_device(views, encoder.device)
    tokens = encoder(views, _first_stream(modality, views, encoder.device))[:, : math.prod(modality.grid)]
    return mean_tokens(tokens.float(), grid_valid(modality, encoder, views))


def _first_stream(modality: Modality[Any], views: Any, device: torch.device) -> Masks | None:
    """Masks that show the first of several streams; None if there is one."""
    if not modality.streams:
        return None
    first = modality.streams[0]
    tokens = first.tokens.to(device).expand(len(tree_leaves(views)[0]), -1)
    return Masks.of_context(tokens, first.parts)


def grid_valid(modality: Modality[Any], encoder: TokenEncoder, views: Any) -> Tensor | None:
    """Which tokens of `grid_layers` are valid: [B, ...] -> bool [B, N], None if all are."""
    valid = encoder.valid(to_device(views, encoder.device))
    return None if valid is None else valid[:, : math.prod(modality.grid)]


def joined_means(layers: Sequence[Tensor], valid: Tensor | None) -> Tensor:
    """Means of the valid tokens of several layers, each layer-normed: [B, N, D] each -> [B, layers * D]."""
    return torch.cat([mean_tokens(F.layer_norm(layer, layer.shape[-1:]), valid) for layer in layers], dim=1)


def samples_at_once(modality: Modality[Any], batch_size: int, on_gpu: bool = False) -> int:
    """Batch size whose tokens fit into memory."""
    tokens = _TOKENS_AT_ONCE_ON_GPU if on_gpu else _TOKENS_AT_ONCE
    return max(1, min(batch_size, tokens // len(modality.positions)))


class _FeatureBuffer:
    def __init__(self, budget: TokenBudget) -> None:
        self.budget = budget
        kinds = ("last", "pooled", "last4", "tokens", "sequences", "labels")
        self.parts: dict[str, dict[str, list[Tensor]]] = {kind: {} for kind in kinds}

    def add(self, kind: str, name: str, values: Tensor) -> None:
        values = values if kind == "labels" else values.float()
        self.parts[kind].setdefault(name, []).append(values.cpu())

    def add_tokens(self, name: str, tokens: Tensor) -> None:
        missing = self.budget.tokens - sum(map(len, self.parts["tokens"].get(name, [])))
        if missing > 0:
            self.add("tokens", name, tokens[:missing])

    def add_sequences(self, name: str, views: Sequence[Tensor]) -> None:
        parts = self.parts["sequences"].setdefault(name, [])
        missing = self.budget.sequences - sum(map(len, parts))
        if missing <= 0:
            return
        tokens = torch.stack([view[:missing] for view in (views if self.budget.every_view else views[:1])], dim=1)
        tokens = averaged(tokens, self.budget.pooling)
        normed = F.layer_norm(tokens, tokens.shape[-1:]) if self.budget.normed else tokens
        parts.append(normed.bfloat16().cpu())

    def features(self) -> Features:
        joined = {
            kind: {name: torch.cat(parts) for name, parts in named.items() if parts}
            for kind, named in self.parts.items()
        }
        return Features(**joined)
