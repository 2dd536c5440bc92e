"""Views of a batch -> vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jepa.data import to_device
from jepa.embedding.settings import Pooling
from jepa.encoder import TokenEncoder, mean_tokens
from jepa.evaluate.cross_modal.vectors import Similarity, StreamEncoder, joint_embedding
from jepa.evaluate.features import LAST_LAYERS, grid_layers, grid_valid, joined_means
from jepa.modality import Modality
from jepa.probe.missing import nan_unless
from jepa.probe.saved import SavedProbe
from jepa.weights.families.encoder import FamilyEncoder

VECTOR = "vector"  # the column of the vectors


@dataclass(frozen=True, eq=False)
class Embedder:
    """Vectors of an encoder. bf16: whether it computes in bf16, as evaluation does; float16: how they are stored."""

    modality: Modality[Any]
    encoder: TokenEncoder
    pooling: Pooling
    bf16: bool
    float16: bool
    probe: "PooledByProbe | None" = None

    @property
    def networks(self) -> nn.Module:
        """All weights that decide the vectors."""
        return self.encoder if self.probe is None else nn.ModuleList([self.encoder, self.probe])

    @property
    def device(self) -> torch.device:
        """Where the encoder is."""
        return self.encoder.device

    @torch.inference_mode()
    def vectors(self, views: Sequence[Any]) -> dict[str, Tensor]:
        """The vectors of a batch, averaged over its views: [B, D], or [B, N, D] for tokens of the first view."""
        used = views[:1] if self.pooling == "tokens" else views
        pooled = torch.stack([self._pooled(to_device(view, self.device)) for view in used]).mean(dim=0)
        return {VECTOR: stored(pooled, self.float16)}

    def _pooled(self, view: Any) -> Tensor:
        count = LAST_LAYERS if self.pooling == "last4" else 1
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            if self.pooling == "own":
                assert isinstance(self.encoder, FamilyEncoder)
                own = self.encoder.encode(view, 1).pooled
                assert own is not None
                return own.float()
            layers = [layer.float() for layer in grid_layers(self.modality, self.encoder, view, count)]
        valid = grid_valid(self.modality, self.encoder, view)
        match self.pooling:
            case "last4":
                return joined_means(layers, valid)
            case "tokens":
                return nan_unless(valid, layers[-1])
            case "attentive":
                assert self.probe is not None
                return self.probe(nan_unless(valid, layers[-1]))  # type: ignore[no-any-return]
            case _:
                return mean_tokens(layers[-1], valid)


class PooledByProbe(nn.Module):
    """What a trained attentive probe pools from tokens, before it classifies: [B, N, D] -> [B, D]."""

    averages: Tensor | None

    def __init__(self, saved: SavedProbe) -> None:
        super().__init__()
        self.probe, self._prepared = saved.network(), saved.prepared
        self.probe.classifier = nn.Identity()  # type: ignore[assignment]
        self.register_buffer("averages", saved.averages())

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, D], NaN where a sample lacks a token -> [B, D]."""
        return self.probe(*self._prepared(tokens, self.averages))  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class StreamEmbedder:
    """Unit vectors of one or both of two matching streams; inner products compare one stream with the other.

    columns: number of the stream, by the name of its column.
    """

    encoder: StreamEncoder
    columns: Mapping[str, int]
    float16: bool

    @property
    def networks(self) -> nn.Module:
        """All weights that decide the vectors."""
        return self.encoder.model

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.encoder.model.context_encoder.device

    @torch.inference_mode()
    def vectors(self, views: Sequence[Any]) -> dict[str, Tensor]:
        """The vectors of a batch by column: [B, D]."""
        way: Similarity = "predicted" if self.encoder.model.config.contrast == "none" else "direct"
        return {
            name: stored(joint_embedding(self.encoder.encode(views[0], stream), stream, way), self.float16)
            for name, stream in self.columns.items()
        }


def stored(vectors: Tensor, float16: bool) -> Tensor:
    """Vectors as they are stored, on the CPU."""
    return vectors.to(torch.float16 if float16 else torch.float32).cpu()
