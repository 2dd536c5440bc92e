"""Rows of the results for two matching streams: retrieval, zero-shot classes, near misses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate

from jepa.evaluate.cross_modal.retrieval import ROUNDING, TOP_K, hit_probabilities, recall_summary, recalls
from jepa.evaluate.cross_modal.samples import EncodedByColumn, NearMisses, concatenate
from jepa.evaluate.cross_modal.vectors import Similarity, StreamEncoder, Vectors, joint_embedding
from jepa.evaluate.features import Column
from jepa.evaluate.table import Row
from jepa.matching import MatchedModality
from jepa.modality import Task
from jepa.training.config import Config

NEAR_MISS, PREDICTED = "near_miss", "_predicted"
_PROMPTS_AT_ONCE = 64


def main_similarity(config: Config[Any, Any]) -> Similarity:
    """How streams are compared: directly if a contrast has aligned them in one space."""
    return "predicted" if config.model.contrast == "none" else "direct"


def zero_shot_tasks(modality: MatchedModality[Any]) -> list[Task]:
    """Tasks whose classes have names."""
    return [task for task in modality.tasks if task.kind == "class" and any(map(len, modality.prompts(task)))]


def row_names(modality: MatchedModality[Any], config: Config[Any, Any]) -> list[str]:
    """All rows except near misses, whose kinds are known only once samples are read."""
    directions = [name for name, _ in _directions(modality)]
    names = [f"retrieval/{direction}@{k}" for direction in directions for k in TOP_K]
    if main_similarity(config) == "direct" and config.loss.prediction_weight > 0:
        names += [f"retrieval/{direction}@{TOP_K[0]}{PREDICTED}" for direction in directions]
    return [*names, *(f"{task.label}/zero_shot" for task in zero_shot_tasks(modality))]


def _directions(modality: MatchedModality[Any]) -> list[tuple[str, int]]:
    """Name and query stream of both directions of retrieval."""
    first, second = modality.streams
    return [(f"{first.name}_to_{second.name}", 0), (f"{second.name}_to_{first.name}", 1)]


def retrieval_rows(
    encoded: EncodedByColumn, modality: MatchedModality[Any], config: Config[Any, Any], wanted: Sequence[str]
) -> dict[str, Row]:
    """Recall at k in both directions."""
    gallery = config.evaluate.gallery
    count = len(encoded["jepa"].pairs.first.encoded)
    size = count if gallery is None else min(gallery, count)
    about = {"test_samples": count // size * size, "gallery": size, "galleries": count // size}
    rows: dict[str, Row] = {}
    for similarity, suffix in ((main_similarity(config), ""), ("predicted", PREDICTED)):
        for direction, query_stream in _directions(modality):
            names = [f"retrieval/{direction}@{k}{suffix}" for k in TOP_K]
            if not any(name in wanted for name in names):
                continue
            found = {
                column: recalls(samples.pairs, similarity, query_stream, gallery) for column, samples in encoded.items()
            }
            rows |= {
                name: _recall_row(found, k, similarity) | about | _gallery_caveats(size, gallery, k)
                for name, k in zip(names, TOP_K, strict=True)
            }
    return {name: rows[name] for name in wanted if name in rows}


def _gallery_caveats(size: int, asked: int | None, k: int) -> Row:
    """The field `caveats` of a retrieval row, if its galleries of `size` samples are smaller than a reader expects."""
    caveats = []
    if asked is not None and size < asked:
        caveats.append(f"the gallery holds {size:,} samples instead of evaluate.gallery={asked:,}; there are no more")
    if size <= k:
        caveats.append(f"every answer is among the top {k}, as the gallery holds {size} samples")
    return {"caveats": caveats} if caveats else {}


def _recall_row(found: Mapping[Column, tuple[Tensor, Tensor, int]], k: int, similarity: Similarity) -> Row:
    summaries = {column: recall_summary(hits, chance, TOP_K.index(k)) for column, (hits, chance, _) in found.items()}
    recall = {column: summary["recall"] for column, summary in summaries.items()}
    row = _row("recall", recall, summaries["jepa"]["chance"], similarity)
    if spread := {column: summary["spread"] for column, summary in summaries.items() if "spread" in summary}:
        row["spread"] = spread
    return row | {"queries": found["jepa"][2]}


def zero_shot_row(
    encoded: EncodedByColumn, classes: Mapping[Column, Tensor], labels: Tensor, named: Tensor, similarity: Similarity
) -> Row:
    """Share of samples whose class has the name that matches best.

    classes: joint embeddings of the names [K, D], zeros where `named` [K] is false. labels: float [n], NaN where
    unknown. Chance: always predicting the most frequent class of these samples.
    """
    rows = labels.isfinite().nonzero().flatten()
    truth = labels[rows].long()
    correct = truth.unsqueeze(1) == torch.arange(len(named))
    has_name = (correct & named).any(dim=1)
    accuracy = {}
    for column, samples in encoded.items():
        vectors = joint_embedding(samples.pairs.first.rows(rows), 0, similarity)
        scores = (vectors @ classes[column].T).masked_fill(~named, -torch.inf)
        hits = hit_probabilities(scores[has_name], correct[has_name], (1,)) if has_name.any() else torch.zeros(1, 1)
        accuracy[column] = float(hits.sum()) / len(rows)
    row = _row("accuracy", accuracy, float(truth.unique(return_counts=True)[1].max()) / len(rows), similarity)
    row["test_samples"] = len(rows)
    if nameless := int((~has_name).sum()):
        row["caveats"] = [
            f"{nameless:,} of {len(rows):,} test samples are of classes without a name; they count as wrong"
        ]
    return row


@torch.inference_mode()
def class_embeddings(
    encoder: StreamEncoder, modality: MatchedModality[Any], task: Task, similarity: Similarity
) -> tuple[Tensor, Tensor]:
    """Mean joint embedding of each class's prompts, of unit length [K, D], and which classes have prompts, bool [K]."""
    prompts = list(modality.prompts(task))
    views = [view for of_class in prompts for view in of_class]
    owner = [number for number, of_class in enumerate(prompts) for _ in of_class]
    named = [len(of_class) > 0 for of_class in prompts]
    batches = [views[start : start + _PROMPTS_AT_ONCE] for start in range(0, len(views), _PROMPTS_AT_ONCE)]
    encoded = concatenate([encoder.encode(default_collate(batch), 1) for batch in batches])
    vectors = joint_embedding(encoded, 1, similarity)
    total = vectors.new_zeros(len(named), vectors.shape[1]).index_add_(0, torch.tensor(owner), vectors)
    return F.normalize(total, dim=-1), torch.tensor(named)


def near_miss_rows(encoded: EncodedByColumn, similarity: Similarity, wants: Callable[[str], bool]) -> dict[str, Row]:
    """By kind, the share of pairs whose match scores above the near miss."""
    rows = {}
    for kind, misses in encoded["jepa"].near_misses.items():
        if wants(f"{NEAR_MISS}/{kind}"):
            shares = {
                column: preference(samples.pairs.first, samples.near_misses[kind], similarity)
                for column, samples in encoded.items()
            }
            row = _row("accuracy", shares, 0.5, similarity)
            rows[f"{NEAR_MISS}/{kind}"] = row | {"test_samples": len(misses.owner)}
    return rows


def preference(first: Vectors, misses: NearMisses, similarity: Similarity) -> float:
    """Share of pairs whose true second stream scores above the false one; ties count half."""
    samples = joint_embedding(first.rows(misses.owner), 0, similarity)
    true, false = (
        (samples * joint_embedding(side, 1, similarity)).sum(dim=-1).nan_to_num(nan=-2.0)
        for side in (misses.true, misses.false)
    )
    better = ((true - false) / ROUNDING).round().sign()
    return float(0.5 + 0.5 * better.double().mean())


def _row(metric: str, scores: Mapping[Column, float], chance: float, similarity: Similarity) -> Row:
    about = {"chance": chance, "way": similarity, "train_samples": 0}
    return {"metric": metric, "higher_is_better": True, **scores, **about}
