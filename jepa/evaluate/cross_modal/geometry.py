"""Geometry of two matching streams: their distance, the dimensions each fills, the scores of matching pairs."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa.collapse import collapse_signs, rankme
from jepa.evaluate.cross_modal.samples import EncodedSamples
from jepa.evaluate.cross_modal.vectors import Similarity, Vectors, joint_embedding
from jepa.evaluate.features import Column
from jepa.matching import MatchedModality


def geometry(
    encoded: Mapping[Column, EncodedSamples], modality: MatchedModality[Any], similarity: Similarity
) -> dict[str, Any]:
    """Numbers by column, on samples each with the first of its second streams; empty for fewer than two samples.

    gap: distance of the means of the unit vectors of both streams, 0 to 2 (Liang et al. 2022), of encoder outputs
    (`own`) and of targets. matched, mismatched: mean score of pairs of one sample, and of two. rankme, by stream: of
    centred encoder outputs. std, by stream: of targets, by dimension.
    """
    pairs = {column: _pairs(samples) for column, samples in encoded.items()}
    count = len(next(iter(pairs.values()))[0].encoded)
    if count < 2:
        return {}
    names = [stream.name for stream in modality.streams]
    scores = {column: _mean_scores(*pair, similarity) for column, pair in pairs.items()}
    return {
        "samples": count,
        "way": similarity,
        "gap": {
            "own": {column: gap(first.encoded, second.encoded) for column, (first, second) in pairs.items()},
            "target": {column: gap(first.target, second.target) for column, (first, second) in pairs.items()},
        },
        "matched": {column: matched for column, (matched, _) in scores.items()},
        "mismatched": {column: mismatched for column, (_, mismatched) in scores.items()},
        "rankme": {
            name: {column: _centred_rankme(pair[stream].encoded) for column, pair in pairs.items()}
            for stream, name in enumerate(names)
        },
        "std": {
            name: {
                column: collapse_signs(pair[stream].target.unsqueeze(1)).target_std for column, pair in pairs.items()
            }
            for stream, name in enumerate(names)
        },
    }


def gap(first: Tensor, second: Tensor) -> float:
    """Distance of the means of unit vectors: [n, D] twice -> 0 to 2."""
    means = [F.normalize(vectors, dim=-1).mean(dim=0) for vectors in (first, second)]
    return float((means[0] - means[1]).norm())


def _centred_rankme(vectors: Tensor) -> float:
    return rankme(vectors - vectors.mean(dim=0))


def _target_std(vectors: Tensor) -> float:
    return collapse_signs(vectors.unsqueeze(1)).target_std


def _pairs(encoded: EncodedSamples) -> tuple[Vectors, Vectors]:
    """Vectors of samples and of the first second stream of each: [n, D] twice."""
    pairs = encoded.pairs
    starts = torch.searchsorted(pairs.owner, torch.arange(len(pairs.first.encoded)))
    return pairs.first, pairs.second.rows(starts)


def _mean_scores(first: Vectors, second: Vectors, similarity: Similarity) -> tuple[float, float]:
    """Mean score of the pairs (i, i), and of the pairs (i, j) with i != j."""
    one, other = joint_embedding(first, 0, similarity).double(), joint_embedding(second, 1, similarity).double()
    same = (one * other).sum()
    all_pairs = one.sum(dim=0) @ other.sum(dim=0)
    count = len(one)
    return float(same / count), float((all_pairs - same) / (count * (count - 1)))
