"""Retrieval: whether a correct candidate is among the k best. Ties and rounding neither raise nor lower recall.

Ties count as if they were ordered at random, so that a model which scores all candidates alike gets exactly chance.
Scores that differ by no more than rounding are ties.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa.evaluate.cross_modal.vectors import Similarity, Vectors, joint_embedding

TOP_K = (1, 5, 10)  # recall is reported at these k
ROUNDING = 1e-6  # of cosines in fp32
_QUERIES_AT_ONCE = 512


def hit_probabilities(scores: Tensor, correct: Tensor, top_k: Sequence[int] = TOP_K) -> Tensor:
    """Probability of a correct candidate among the k best: scores, bool correct [q, c] -> double [len(top_k), q].

    Every query has at least one correct candidate. NaN ranks below any score.
    """
    steps = (scores.double().nan_to_num(nan=-2.0) / ROUNDING).round()
    highest = steps.masked_fill(~correct, -torch.inf).amax(dim=1, keepdim=True)
    above, tied = (steps > highest).sum(dim=1), steps == highest
    tied_correct, tied_wrong = (tied & correct).sum(dim=1), (tied & ~correct).sum(dim=1)
    return torch.stack([_hit_probability(k - above, tied_correct, tied_wrong) for k in top_k])


def _hit_probability(places: Tensor, correct: Tensor, wrong: Tensor) -> Tensor:
    """Probability of a correct one among the first `places` of randomly ordered correct and wrong ones: [q] each."""
    missed = torch.ones(len(places), dtype=torch.double)  # hypergeometric probability that all of them are wrong
    for place in range(int(places.max().clamp_min(0))):
        factor = (wrong - place).clamp_min(0) / (correct + wrong - place).clamp_min(1)
        missed = torch.where(place < places, missed * factor, missed)
    return 1 - missed


@dataclass(frozen=True)
class RetrievalSet:
    """Vectors of the first streams of n samples, and of all m second streams that match them."""

    first: Vectors  # [n]
    second: Vectors  # [m]
    owner: Tensor  # [m] sample of each second stream, ascending
    descriptions: Sequence[str]  # [m] content of each second stream; equal ones are one candidate

    def galleries(self, size: int | None) -> Iterator["RetrievalSet"]:
        """Consecutive sets of `size` samples; samples left over are dropped, unless there are fewer than `size`."""
        count = len(self.first.encoded)
        size = count if size is None else min(size, count)
        for start in range(0, count - size + 1, size):
            rows = ((self.owner >= start) & (self.owner < start + size)).nonzero().flatten()
            descriptions = [self.descriptions[row] for row in rows.tolist()]
            first = self.first.rows(torch.arange(start, start + size))
            yield RetrievalSet(first, self.second.rows(rows), self.owner[rows] - start, descriptions)


def recalls(
    pairs: RetrievalSet, similarity: Similarity, query_stream: int, gallery: int | None
) -> tuple[Tensor, Tensor, int]:
    """Recall at `TOP_K` in each gallery, its chance, and the number of queries: doubles [galleries, 3] twice, int.

    query_stream 0: first streams search for a matching second stream; 1: second streams search for their sample. Second
    streams with equal descriptions are one candidate, which matches every sample of the gallery that has it.
    """
    found, chance, queries = [], [], 0
    for part in pairs.galleries(gallery):
        hits, chance_hits = _gallery_hits(part, similarity, query_stream)
        found.append(hits.mean(dim=1))
        chance.append(chance_hits.mean(dim=1))
        queries += hits.shape[1]
    return torch.stack(found), torch.stack(chance), queries


def _gallery_hits(part: RetrievalSet, similarity: Similarity, query_stream: int) -> tuple[Tensor, Tensor]:
    """Hit probabilities of every query, and those of constant scores: doubles [3, q] twice."""
    last_rows = {text: row for row, text in enumerate(part.descriptions)}
    numbers = {text: number for number, text in enumerate(last_rows)}
    kinds = torch.tensor([numbers[text] for text in part.descriptions])
    matches = torch.zeros(len(part.first.encoded), len(numbers), dtype=torch.bool)  # [samples, distinct second streams]
    matches[part.owner, kinds] = True
    distinct = torch.tensor(list(last_rows.values()))
    first = joint_embedding(part.first, 0, similarity)
    second = joint_embedding(part.second.rows(distinct), 1, similarity)
    queries, candidates, correct = (
        (second[kinds], first, matches.T[kinds]) if query_stream else (first, second, matches)
    )
    hits, chance = [], []
    for some, right in zip(queries.split(_QUERIES_AT_ONCE), correct.split(_QUERIES_AT_ONCE), strict=True):
        hits.append(hit_probabilities(some @ candidates.T, right))
        chance.append(hit_probabilities(torch.zeros(right.shape), right))
    return torch.cat(hits, dim=1), torch.cat(chance, dim=1)


def recall_summary(found: Tensor, chance: Tensor, index: int) -> dict[str, float]:
    """Mean recall at `TOP_K[index]` over galleries, its chance, and the deviation if there are several galleries."""
    values = found[:, index].tolist()
    summary = {"recall": statistics.fmean(values), "chance": statistics.fmean(chance[:, index].tolist())}
    return summary | ({"spread": statistics.stdev(values)} if len(values) > 1 else {})
