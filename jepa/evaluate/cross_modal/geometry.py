"""Where two matching streams lie: how far apart, how much of the space each fills, how much nearer matches are."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa.collapse import collapse_signs, rankme
from jepa.evaluate.cross_modal.samples import Seen
from jepa.evaluate.cross_modal.vectors import Similarity, Vectors, joint_embedding
from jepa.evaluate.features import Column
from jepa.matching import MatchedModality


def geometry(seen: Mapping[Column, Seen], modality: MatchedModality[Any], way: Similarity) -> dict[str, Any]:
    """Signs by column, of samples each with the first of its second streams; empty for fewer than two samples.

    gap: distance of the means of the unit vectors of both streams, 0 to 2 (Liang et al. 2022), of what the
    encoder gives (`own`) and of targets. matched, mismatched: mean score of streams of one sample, and of two. rankme:
    of centred vectors; std: of targets, by dimension. Both by stream.
    """
    pairs = {column: _pairs(one) for column, one in seen.items()}
    count = len(next(iter(pairs.values()))[0].own)
    if count < 2:
        return {}
    names = [stream.name for stream in modality.streams]
    scored = {column: _matched(*pair, way) for column, pair in pairs.items()}
    return {
        "samples": count,
        "way": way,
        "gap": {
            kind: {column: gap(getattr(one, kind), getattr(other, kind)) for column, (one, other) in pairs.items()}
            for kind in ("own", "target")
        },
        "matched": {column: matched for column, (matched, _) in scored.items()},
        "mismatched": {column: mismatched for column, (_, mismatched) in scored.items()},
        "rankme": {
            name: {column: rankme(pair[place].own - pair[place].own.mean(dim=0)) for column, pair in pairs.items()}
            for place, name in enumerate(names)
        },
        "std": {
            name: {column: collapse_signs(pair[place].target.unsqueeze(1)).target_std for column, pair in pairs.items()}
            for place, name in enumerate(names)
        },
    }


def gap(first: Tensor, second: Tensor) -> float:
    """Distance of the means of unit vectors: [n, D] twice -> 0 to 2."""
    means = [F.normalize(vectors, dim=-1).mean(dim=0) for vectors in (first, second)]
    return float((means[0] - means[1]).norm())


def _pairs(seen: Seen) -> tuple[Vectors, Vectors]:
    """Vectors of samples and of the first second stream of each: [n, D] twice."""
    owner = seen.streams.owner
    starts = torch.searchsorted(owner, torch.arange(len(seen.streams.first.own)))
    return seen.streams.first, seen.streams.second.rows(starts)


def _matched(first: Vectors, second: Vectors, way: Similarity) -> tuple[float, float]:
    """Mean score of vectors at the same place, and at different ones."""
    one, other = joint_embedding(first, 0, way).double(), joint_embedding(second, 1, way).double()
    same = (one * other).sum()
    all_pairs = one.sum(dim=0) @ other.sum(dim=0)
    count = len(one)
    return float(same / count), float((all_pairs - same) / (count * (count - 1)))
