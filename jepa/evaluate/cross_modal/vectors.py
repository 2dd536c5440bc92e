"""Vectors of two matching streams: the encoding of each stream, the prediction of the other, and their similarity."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from jepa.data import to_device
from jepa.masking import Masks
from jepa.matching import MatchedModality
from jepa.model import JEPA
from jepa.probe.protocol import Which

Similarity = Literal["predicted", "direct"]


class Vectors(NamedTuple):
    """One stream of n samples. All [n, D]."""

    encoded: Tensor  # pooled output of the encoder
    target: Tensor  # pooled output of the target encoder, layer-normed
    prediction: Tensor  # predicted target of the other stream

    def rows(self, rows: Tensor) -> "Vectors":
        """The vectors of some samples."""
        return Vectors(self.encoded[rows], self.target[rows], self.prediction[rows])


@dataclass(frozen=True)
class StreamEncoder:
    """The networks of a run, applied to one stream at a time. encoder: which one gives `Vectors.encoded`."""

    model: JEPA
    modality: MatchedModality[Any]
    encoder: Which = "target_encoder"
    bf16: bool = False

    @torch.inference_mode()
    def encode(self, views: Any, stream: int) -> Vectors:
        """Vectors of a stream of views [B, ...]; the other stream is not encoded."""
        this, other = self.modality.streams[stream], self.modality.streams[1 - stream]
        device, model = self.model.context_encoder.device, self.model
        views = to_device(views, device)
        size = len(tree_leaves(views)[0])
        hidden = torch.full((size, 1, 1), other.summary, device=device)
        masks = Masks(this.tokens.to(device).expand(size, -1), hidden, this.parts)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            masks = masks.bind(model.context_encoder.valid(views))
            context, target = (encoder(views, masks) for encoder in (model.context_encoder, model.target_encoder))
            prediction = model.predict(context, masks)[:, 0, 0, model.config.last_predicted]
        chosen = {"context_encoder": context, "target_encoder": target}[self.encoder]
        encoded = model.context_encoder.pool(chosen, masks)[this.name].float()
        pooled = model.target_encoder.pool(target, masks)[this.name].float()
        return Vectors(encoded.cpu(), F.layer_norm(pooled, pooled.shape[-1:]).cpu(), prediction.float().cpu())


def scores(first: Vectors, second: Vectors, similarity: Similarity) -> Tensor:
    """Similarity of each of n first streams and each of m second streams: [n, m], -1 to 1.

    direct: cosine of the encodings, for streams that a contrast has aligned in one space. predicted: mean of the two
    cosines between the target of one stream and its prediction from the other, which needs no common space.
    """
    return joint_embedding(first, 0, similarity) @ joint_embedding(second, 1, similarity).T


def joint_embedding(vectors: Vectors, stream: int, similarity: Similarity) -> Tensor:
    """Unit vectors of a stream whose inner products with those of the other stream are `scores`: [n, D or 2 D]."""
    if similarity == "direct":
        return F.normalize(vectors.encoded, dim=-1)
    prediction, target = (F.normalize(half, dim=-1) for half in (vectors.prediction, vectors.target))
    return torch.cat((prediction, target) if stream == 0 else (target, prediction), dim=-1) / 2**0.5
