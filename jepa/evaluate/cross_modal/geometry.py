"""Geometry of two matching streams: their distance, the dimensions each fills, the scores of matching pairs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa.collapse import collapse_signs, rankme
from jepa.evaluate.cross_modal.samples import EncodedByColumn, EncodedSamples
from jepa.evaluate.cross_modal.vectors import Similarity, Vectors, joint_embedding
from jepa.matching import MatchedModality


def geometry(encoded: EncodedByColumn, modality: MatchedModality[Any], similarity: Similarity) -> dict[str, Any]:
    """Numbers by column. Each sample is paired with the first of its second streams; empty for fewer than two samples.

    gap: distance of the means of the unit vectors of both streams, 0 to 2 (Liang et al. 2022), of encoder outputs
    (`own`) and of targets. matched, mismatched: mean score of pairs of one sample, and of two. rankme, by stream: of
    centred encoder outputs. std, by stream: of targets, by dimension.
    """
    pairs = {column: _pairs(samples) for column, samples in encoded.items()}
    count = len(next(iter(pairs.values()))[0].encoded)
    if count < 2:
        return {}
    scores = {column: _mean_scores(*pair, similarity) for column, pair in pairs.items()}
    streams = {
        stream.name: {column: pair[index] for column, pair in pairs.items()}
        for index, stream in enumerate(modality.streams)
    }
    return {
        "samples": count,
        "dimensions": next(iter(pairs.values()))[0].encoded.shape[1],
        "way": similarity,
        "gap": {
            "own": {column: gap(first.encoded, second.encoded) for column, (first, second) in pairs.items()},
            "target": {column: gap(first.target, second.target) for column, (first, second) in pairs.items()},
        },
        "matched": {column: matched for column, (matched, _) in scores.items()},
        "mismatched": {column: mismatched for column, (_, mismatched) in scores.items()},
        "rankme": {
            name: {column: rankme(one.encoded - one.encoded.mean(dim=0)) for column, one in columns.items()}
            for name, columns in streams.items()
        },
        "std": {
            name: {column: collapse_signs(one.target.unsqueeze(1)).target_std for column, one in columns.items()}
            for name, columns in streams.items()
        },
    }


def gap(first: Tensor, second: Tensor) -> float:
    """Distance of the means of unit vectors: [n, D] twice -> 0 to 2."""
    means = [F.normalize(vectors, dim=-1).mean(dim=0) for vectors in (first, second)]
    return float((means[0] - means[1]).norm())


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
