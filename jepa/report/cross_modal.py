"""The report on two matching streams: retrieval of pictures by second streams, and the cross-modal gain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from jepa.evaluate.cross_modal.rows import main_similarity
from jepa.evaluate.cross_modal.vectors import StreamEncoder, scores
from jepa.evaluate.cross_modal.words import gain_sentence
from jepa.evaluate.features import samples_at_once
from jepa.matching import MatchedModality
from jepa.modality import Sample, Samples
from jepa.report.cards import Card, Picture, Strip
from jepa.report.charts import percent
from jepa.report.galleries import FEW_FRAMES, NEIGHBOURS, QUERIES, SMALL_SIDE, readable
from jepa.report.overlays import resize
from jepa.report.run import Run

_CONTEXTS = {"own": "of the same sample", "without": "none", "other": "of another sample"}


@dataclass(frozen=True)
class PictureRetrieval:
    """Pictures of n samples, the description of one second stream each, and the scores of all pairs."""

    pictures: list[Tensor]  # uint8 [H, W, 3], or moving [T, H, W, 3]
    descriptions: list[str]
    scores: Tensor  # [n queries, n pictures]

    def ranks(self) -> list[int]:
        """Rank of each query's own picture, 1 for the best; pictures with the same score rank before it."""
        own = self.scores.diagonal().unsqueeze(1)
        return (self.scores >= own).sum(dim=1).tolist()


def retrieve(run: Run, samples: Samples) -> PictureRetrieval | None:
    """Encode and compare as many samples as the report reads; None if there is nothing to show."""
    modality = run.modality
    if not isinstance(modality, MatchedModality) or "latent" not in run.config.target_kinds:
        return None
    encoder = StreamEncoder(run.networks(), modality, run.config.evaluated_encoder)
    pictures: list[Tensor] = []
    descriptions: list[str] = []
    firsts, seconds = [], []

    def first_pair(sample: Sample) -> tuple[Any, str]:
        return modality.matches(sample.inputs)[0], modality.descriptions(sample.inputs)[0]

    of_samples = readable(samples, first_pair, run.sample_limit)
    while pairs := list(islice(of_samples, max(2, samples_at_once(modality, 64)))):
        drawn = [picture for view, _ in pairs if (picture := modality.picture(view)) is not None]
        if len(drawn) < len(pairs):
            continue
        views = default_collate([view for view, _ in pairs])
        firsts.append(encoder.encode(views, 0))
        seconds.append(encoder.encode(views, 1))
        pictures += [resize(picture, SMALL_SIDE, FEW_FRAMES) for picture in drawn]
        descriptions += [description for _, description in pairs]
    if len(pictures) < 2:
        return None
    similarity = main_similarity(run.config)
    rows = [torch.cat([scores(first, second, similarity) for second in seconds], dim=1) for first in firsts]
    return PictureRetrieval(pictures, descriptions, torch.cat(rows).T)


def retrieval_gallery(found: PictureRetrieval) -> list[Card]:
    """For each query, the pictures that match it best, outlined if they have the same description."""
    cards = []
    for query, rank in enumerate(found.ranks()[:QUERIES]):
        best = found.scores[query].topk(min(NEIGHBOURS, len(found.pictures))).indices.tolist()
        description = found.descriptions[query]
        pictures = []
        for number, index in enumerate(best, start=1):
            alt, equal = f"found by query {query + 1}, rank {number}", found.descriptions[index] == description
            pictures.append(Picture(found.pictures[index], "", alt, outlined=equal))
        cards.append([Strip(f"{description} (own picture: rank {rank} of {len(found.pictures)})", pictures)])
    return cards


def retrieval_words(found: PictureRetrieval, names: Sequence[str]) -> str:
    """Explanation of the gallery, as HTML."""
    ranks = found.ranks()
    share = sum(rank <= NEIGHBOURS for rank in ranks) / len(ranks)
    chance = min(1.0, NEIGHBOURS / len(ranks))
    second = escape(names[1])
    return (
        f"Each row shows the {second} of a sample and, below it, the best matches among {len(ranks):,} pictures. "
        f'<span class="key">Outlined</span> pictures have exactly this {second}. Over all queries, the own picture is '
        f"among the first {NEIGHBOURS} for {percent(share, 1)}, by chance for {percent(chance, 1)}."
    )


def gain_table(streams: Mapping[str, Any]) -> str:
    """Prediction errors of the first stream with and without the second, as HTML; empty if not measured."""
    if "gain" not in streams:
        return ""
    (first, second), section = streams["names"], streams["gain"]
    errors = {name: "-" if error is None else f"{error:.4f}" for name, error in section["error"].items()}
    rows = "".join(
        f"<tr><td>{context}</td><td>{errors[name]}</td><td>{_reduction(section, name)}</td></tr>"
        for name, context in _CONTEXTS.items()
    )
    head = f"<th>{escape(second)} in the context</th><th>error</th><th>reduction</th>"
    return (
        f"<h2>Does the {escape(second)} help to predict the {escape(first)}?</h2>\n<p>{escape(gain_sentence(streams))} "
        "All rows use the same hidden and visible tokens of each sample. The error is the distance of the run's loss; "
        "± gives the standard error of paired differences.</p>\n"
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>'
    )


def _reduction(section: Mapping[str, Any], name: str) -> str:
    difference = section.get(f"without_minus_{name}", {})
    if difference.get("mean") is None:
        return "-"
    error = difference["standard_error"]
    spread = "" if error is None else f' <span class="spread">± {error:.4f}</span>'
    return f"{difference['mean']:.4f}{spread}"
