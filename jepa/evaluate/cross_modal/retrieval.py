"""Whether what is looked for is among the best scored: recall that equal scores and rounding cannot raise or lower.

Equal scores count as if their order were drawn at random, all orders being alike, so that what scores all candidates
the same gets exactly chance. Scores that differ by less than what rounding may do are equal.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jepa.evaluate.cross_modal.vectors import Similarity, Vectors, joint_embedding

BEST = (1, 5, 10)  # recall is reported among so many best
ROUNDING = 1e-6  # of cosines in fp32
_QUERIES_AT_ONCE = 512


def hit_shares(scores: Tensor, right: Tensor, best: Sequence[int] = BEST) -> Tensor:
    """Probability that a right candidate is among the best: scores [q, c], right bool [q, c] -> double [len(best), q].

    Every query has at least one right candidate. What is not a number is worse than any score.
    """
    steps = (scores.double().nan_to_num(nan=-2.0) / ROUNDING).round()
    highest = steps.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    above, equal = (steps > highest).sum(dim=1), steps == highest
    right_ones, wrong_ones = (equal & right).sum(dim=1), (equal & ~right).sum(dim=1)
    return torch.stack([_drawn(count - above, right_ones, wrong_ones) for count in best])


def _drawn(places: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    """Probability that, of so many right and wrong ones in random order, a right one is in the first places: [q] each.

    The complement of the hypergeometric probability that all of them are wrong.
    """
    missed = torch.ones(len(places), dtype=torch.double)
    for place in range(int(places.max().clamp_min(0))):
        factor = (wrong - place).clamp_min(0) / (right + wrong - place).clamp_min(1)
        missed = torch.where(place < places, missed * factor, missed)
    return 1 - missed


@dataclass(frozen=True)
class Streams:
    """Vectors of the first stream of n samples, and of all second streams that match them.

    owner: the sample of each second stream [m], ascending; said: what each of them says [m].
    """

    first: Vectors  # [n]
    second: Vectors  # [m]
    owner: Tensor
    said: Sequence[str]

    def galleries(self, size: int | None) -> Iterator["Streams"]:
        """Of so many samples each, one after the other; those left over are in none, unless there is no other."""
        count = len(self.first.own)
        size = count if size is None else min(size, count)
        for start in range(0, count - size + 1, size):
            rows = ((self.owner >= start) & (self.owner < start + size)).nonzero().flatten()
            said = [self.said[row] for row in rows.tolist()]
            first = self.first.rows(torch.arange(start, start + size))
            yield Streams(first, self.second.rows(rows), self.owner[rows] - start, said)


def recalls(streams: Streams, way: Similarity, towards: int, gallery: int | None) -> tuple[Tensor, Tensor, int]:
    """Recall among `BEST`, in each gallery, with chance: doubles [galleries, 3] twice, and the number of queries.

    towards 1: each first stream looks for one of the second streams that match it; 0: each of these for a first stream.
    Second streams that say the same are one: a match of every sample of the gallery that has it.
    """
    found, chance, queries = [], [], 0
    for part in streams.galleries(gallery):
        shares, blind = _of_gallery(part, way, towards)
        found.append(shares.mean(dim=1))
        chance.append(blind.mean(dim=1))
        queries += shares.shape[1]
    return torch.stack(found), torch.stack(chance), queries


def _of_gallery(part: Streams, way: Similarity, towards: int) -> tuple[Tensor, Tensor]:
    """Hits of every query, and those of scores that are all alike: doubles [3, q] twice."""
    numbers = {said: number for number, said in enumerate(dict.fromkeys(part.said))}
    kind = torch.tensor([numbers[said] for said in part.said])
    matches = torch.zeros(len(part.first.own), len(numbers), dtype=torch.bool)  # [samples, distinct second streams]
    matches[part.owner, kind] = True
    said_last = {number: row for row, number in enumerate(kind.tolist())}
    ones = torch.tensor([said_last[number] for number in range(len(numbers))])
    first, second = joint_embedding(part.first, 0, way), joint_embedding(part.second.rows(ones), 1, way)
    queries, candidates, right = (first, second, matches) if towards else (second[kind], first, matches.T[kind])
    chunks = zip(queries.split(_QUERIES_AT_ONCE), right.split(_QUERIES_AT_ONCE), strict=True)
    shares = [(hit_shares(some @ candidates.T, of, BEST), hit_shares(torch.zeros(of.shape), of)) for some, of in chunks]
    hits, blind = zip(*shares, strict=True)
    return torch.cat(hits, dim=1), torch.cat(blind, dim=1)


def summary(found: Tensor, chance: Tensor, place: int) -> dict[str, Any]:
    """Mean over galleries, and deviation where there are several, of recall among the best of a place in `BEST`."""
    values = found[:, place].tolist()
    told: dict[str, Any] = {"recall": statistics.fmean(values), "chance": statistics.fmean(chance[:, place].tolist())}
    return told | ({"spread": statistics.stdev(values)} if len(values) > 1 else {})
