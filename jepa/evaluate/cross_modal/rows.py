"""Rows of the table where a modality has two streams that match: retrieval, classes by their names, near misses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate

from jepa.evaluate.cross_modal.retrieval import BEST, ROUNDING, hit_shares, recalls, summary
from jepa.evaluate.cross_modal.samples import NearMisses, Seen
from jepa.evaluate.cross_modal.vectors import Similarity, StreamEncoder, Vectors, joint_embedding
from jepa.evaluate.features import Column
from jepa.matching import MatchedModality
from jepa.modality import Task
from jepa.training.config import Config

NEAR_MISS, PREDICTED = "near_miss", "_predicted"
_PROMPTS_AT_ONCE = 64
Row = dict[str, Any]


def main_way(config: Config[Any, Any]) -> Similarity:
    """How vectors of two streams are compared: directly where a contrast has brought them into one space."""
    return "predicted" if config.model.contrast == "none" else "direct"


def zero_shot_tasks(modality: MatchedModality[Any]) -> list[Task]:
    """Tasks whose classes can be told by their names."""
    return [task for task in modality.tasks if task.kind == "class" and any(map(len, modality.prompts(task)))]


def row_names(modality: MatchedModality[Any], config: Config[Any, Any]) -> list[str]:
    """The rows there are, but for near misses, whose kinds only the samples tell."""
    directions = [name for name, _ in _directions(modality)]
    names = [f"retrieval/{direction}@{best}" for direction in directions for best in BEST]
    if main_way(config) == "direct" and config.loss.prediction_weight > 0:
        names += [f"retrieval/{direction}@{BEST[0]}{PREDICTED}" for direction in directions]
    return [*names, *(f"{task.label}/zero_shot" for task in zero_shot_tasks(modality))]


def is_wanted(name: str, asked: Sequence[str]) -> bool:
    """Whether a row belongs to what is asked for by its name or that of its task; all do where nothing is."""
    return not asked or any(name == one or name.startswith(f"{one}/") for one in asked)


def _directions(modality: MatchedModality[Any]) -> Iterator[tuple[str, int]]:
    first, second = modality.streams
    yield f"{first.name}_to_{second.name}", 1
    yield f"{second.name}_to_{first.name}", 0


def retrieval_rows(
    seen: Mapping[Column, Seen], modality: MatchedModality[Any], config: Config[Any, Any], wanted: Sequence[str]
) -> dict[str, Row]:
    """Recall among the best, both ways round."""
    main, gallery = main_way(config), config.evaluate.gallery
    rows: dict[str, Row] = {}
    for way, suffix in ((main, ""), ("predicted", PREDICTED)):
        for direction, towards in _directions(modality):
            names = {f"retrieval/{direction}@{best}{suffix}": place for place, best in enumerate(BEST)}
            names = {name: place for name, place in names.items() if name in wanted}
            if names:
                found = {column: recalls(one.streams, way, towards, gallery) for column, one in seen.items()}
                rows |= {name: _recall_row(found, place, way) for name, place in names.items()}
            samples = len(next(iter(seen.values())).streams.first.own)
            for name in names:
                size = samples if gallery is None else min(gallery, samples)
                rows[name] |= {"test_samples": samples // size * size, "gallery": size, "galleries": samples // size}
    return {name: rows[name] for name in wanted if name in rows}


def _recall_row(found: Mapping[Column, tuple[Tensor, Tensor, int]], place: int, way: Similarity) -> Row:
    told = {column: summary(hits, chance, place) for column, (hits, chance, _) in found.items()}
    row = _row("recall", {column: one["recall"] for column, one in told.items()}, told["jepa"]["chance"], way)
    if spread := {column: one["spread"] for column, one in told.items() if "spread" in one}:
        row["spread"] = spread
    return row | {"queries": found["jepa"][2]}


def named_row(
    seen: Mapping[Column, Seen], classes: Mapping[Column, Tensor], labels: Tensor, known: Tensor, way: Similarity
) -> Row:
    """Share of samples whose class is the one whose name matches best.

    classes: joint vectors of the names [K, D], zeros where `known` [K] says that one has none; labels: float [n], not a
    number where not known. Chance: naming the class that is commonest among these samples.
    """
    rows = labels.isfinite().nonzero().flatten()
    truth = labels[rows].long()
    right = F.one_hot(truth, max(len(known), int(truth.max()) + 1)).bool()[:, : len(known)]
    found = {}
    for column, one in seen.items():
        scores = (joint_embedding(one.streams.first.rows(rows), 0, way) @ classes[column].T).masked_fill(
            ~known, -torch.inf
        )
        nameable = (right & known).any(dim=1)
        shares = hit_shares(scores[nameable], right[nameable], (1,)) if nameable.any() else torch.zeros(1, 1)
        found[column] = float(shares.sum()) / len(rows)
    return _row("accuracy", found, float(truth.bincount().max()) / len(rows), way) | {"test_samples": len(rows)}


@torch.inference_mode()
def class_vectors(
    matcher: StreamEncoder, modality: MatchedModality[Any], task: Task, way: Similarity
) -> tuple[Tensor, Tensor]:
    """What stands for the names of classes: the mean over prompts, of unit length [K, D], and which have any [K]."""
    views: list[Any] = []
    owner: list[int] = []
    known: list[bool] = []
    for number, prompts in enumerate(modality.prompts(task)):
        views += prompts
        owner += [number] * len(prompts)
        known.append(len(prompts) > 0)
    told = joint_embedding(_second(matcher, views), 1, way)
    total = told.new_zeros(len(known), told.shape[1]).index_add_(0, torch.tensor(owner), told)
    return F.normalize(total, dim=-1), torch.tensor(known)


def _second(matcher: StreamEncoder, views: Sequence[Any]) -> Vectors:
    left, parts = iter(views), []
    while some := list(islice(left, _PROMPTS_AT_ONCE)):
        parts.append(matcher.encode(default_collate(some), 1))
    return Vectors(*(torch.cat(vectors) for vectors in zip(*parts, strict=True)))


def near_miss_rows(seen: Mapping[Column, Seen], way: Similarity, wanted: Callable[[str], bool]) -> dict[str, Row]:
    """By kind, the share of pairs in which what matches is scored higher than what nearly does, equal ones half."""
    kinds = [kind for kind in seen["jepa"].near if wanted(f"{NEAR_MISS}/{kind}")]
    rows = {}
    for kind in kinds:
        found = {column: preferred(one.streams.first, one.near[kind], way) for column, one in seen.items()}
        pairs = len(seen["jepa"].near[kind].owner)
        rows[f"{NEAR_MISS}/{kind}"] = _row("accuracy", found, 0.5, way) | {"test_samples": pairs}
    return rows


def preferred(first: Vectors, misses: NearMisses, way: Similarity) -> float:
    """Share of pairs whose true second stream is scored higher than the false one, equal ones half: 0 to 1."""
    mine = joint_embedding(first.rows(misses.owner), 0, way)
    true, false = (
        (mine * joint_embedding(side, 1, way)).sum(dim=-1).nan_to_num(nan=-2.0) for side in (misses.true, misses.false)
    )
    better = ((true - false) / ROUNDING).round().sign()
    return float(0.5 + 0.5 * better.double().mean())


def _row(metric: str, scores: Mapping[Column, float], chance: float, way: Similarity) -> Row:
    return {"metric": metric, "higher_is_better": True, **scores, "chance": chance, "way": way, "train_samples": 0}
