"""Whether one stream of a sample finds the other: what stands for each, what is predicted of the other, their match."""

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

Similarity = Literal["predicted", "direct"]


class Vectors(NamedTuple):
    """What stands for one stream of samples. own: as the encoder gives it [n, D]; target: layer-normed, of the target
    encoder [n, D]; guess: what the predictor takes for the target of the other stream [n, D].
    """

    own: Tensor
    target: Tensor
    guess: Tensor

    def rows(self, rows: Tensor) -> "Vectors":
        """Those of some samples."""
        return Vectors(*(vectors[rows] for vectors in (self.own, self.target, self.guess)))


@dataclass(frozen=True)
class StreamEncoder:
    """The networks of a run, asked about one stream at a time. encoder: whose vectors `own` are."""

    model: JEPA
    modality: MatchedModality[Any]
    encoder: Literal["target_encoder", "context_encoder"] = "target_encoder"
    bf16: bool = False

    @torch.inference_mode()
    def encode(self, views: Any, stream: int) -> Vectors:
        """What stands for a stream of views [B, ...], the other stream of which is not looked at."""
        here, there = self.modality.streams[stream], self.modality.streams[1 - stream]
        device, model = self.model.context_encoder.device, self.model
        views = to_device(views, device)
        size = len(tree_leaves(views)[0])
        keep = here.tokens.to(device).expand(size, -1)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            present = model.context_encoder.present(views)
            context, target = (
                encoder(views, keep, here.parts) for encoder in (model.context_encoder, model.target_encoder)
            )
            hidden = torch.full((size, 1, 1), there.summary, device=device)
            guess = model.guess(context, Masks(keep, hidden, here.parts), present=present)[:, 0, 0, 0]
        seen = None if present is None else present.gather(1, keep)
        encoded = {"context_encoder": context, "target_encoder": target}[self.encoder]
        own = model.context_encoder.pool(encoded, here.parts, seen)[here.name].float()
        whole = model.target_encoder.pool(target, here.parts, seen)[here.name].float()
        return Vectors(own.cpu(), F.layer_norm(whole, whole.shape[-1:]).cpu(), guess.float().cpu())


def scores(first: Vectors, second: Vectors, way: Similarity) -> Tensor:
    """How well each of n vectors of the first stream matches each of m of the second: [n, m], -1 to 1.

    direct: cosine of what stands for them, for towers that a contrast has brought together; predicted: mean of the
    cosines between either and what the predictor makes of the other, which need no common space.
    """
    return joint_embedding(first, 0, way) @ joint_embedding(second, 1, way).T


def joint_embedding(vectors: Vectors, stream: int, way: Similarity) -> Tensor:
    """Vectors of unit length of a stream whose inner products with those of the other are `scores`: [n, D or 2 D]."""
    if way == "direct":
        return F.normalize(vectors.own, dim=-1)
    halves = (vectors.guess, vectors.target) if stream == 0 else (vectors.target, vectors.guess)
    return torch.cat([F.normalize(half, dim=-1) for half in halves], dim=-1) / 2**0.5
