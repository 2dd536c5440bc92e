"""What a report shows of two streams that match: what second streams find among pictures, and what they are worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from jepa.data import seeded
from jepa.evaluate.cross_modal.rows import main_similarity
from jepa.evaluate.cross_modal.vectors import StreamEncoder, scores
from jepa.evaluate.cross_modal.words import gain_sentence
from jepa.evaluate.features import samples_at_once
from jepa.matching import MatchedModality
from jepa.modality import BadSampleError, Samples
from jepa.report.cards import Card, Picture, Strip
from jepa.report.charts import percent
from jepa.report.galleries import FEW_MOMENTS, NEIGHBOURS, QUERIES, SMALL_SIDE
from jepa.report.overlays import resized
from jepa.report.run import Run

_ERRORS = {"own": "its own", "without": "none", "other": "that of another sample"}


@dataclass(frozen=True)
class Found:
    """Pictures of samples, what one second stream of each says, and how well each of these matches each picture."""

    pictures: list[Tensor]  # uint8 [H, W, 3], or moving [T, H, W, 3]
    said: list[str]
    scores: Tensor  # [n queries, n pictures]

    def ranks(self) -> list[int]:
        """The place of the right picture among all, 1 for the best, one that is scored the same going before it."""
        right = self.scores.diagonal().unsqueeze(1)
        return (self.scores >= right).sum(dim=1).tolist()


def find(run: Run, samples: Samples) -> Found | None:
    """Read up to as many samples as the report looks at, and match them; None where there is nothing to show."""
    modality = run.modality
    if not isinstance(modality, MatchedModality) or "latent" not in run.config.target_kinds:
        return None
    matcher = StreamEncoder(run.networks(), modality, run.config.evaluate.encoder)
    pictures: list[Tensor] = []
    said: list[str] = []
    firsts, seconds = [], []
    order = iter(torch.randperm(len(samples), generator=seeded("report")).tolist()[: run.sample_limit])
    while places := list(islice(order, max(2, samples_at_once(modality, 64)))):
        read = _read(modality, samples, places)
        drawn = [picture for view, _ in read if (picture := modality.picture(view)) is not None]
        if not read or len(drawn) < len(read):
            continue
        views = default_collate([view for view, _ in read])
        firsts.append(matcher.encode(views, 0))
        seconds.append(matcher.encode(views, 1))
        pictures += [resized(picture, SMALL_SIDE, FEW_MOMENTS) for picture in drawn]
        said += [words for _, words in read]
    if len(pictures) < 2:
        return None
    way = main_similarity(run.config)
    found = [scores(one, other, way) for one in firsts for other in seconds]
    rows = [torch.cat(found[place : place + len(seconds)], dim=1) for place in range(0, len(found), len(seconds))]
    return Found(pictures, said, torch.cat(rows).T)


def _read(modality: MatchedModality[Any], samples: Samples, places: Sequence[int]) -> list[tuple[Any, str]]:
    read = []
    for place in places:
        try:
            inputs = samples[place].inputs
            read.append((modality.matches(inputs)[0], modality.descriptions(inputs)[0]))
        except BadSampleError:
            continue
    return read


def match_gallery(found: Found) -> list[Card]:
    """Of a query what it says, and the pictures that it matches best, marked where the same is said of them."""
    cards = []
    for query, rank in enumerate(found.ranks()[:QUERIES]):
        best = found.scores[query].topk(min(NEIGHBOURS, len(found.pictures))).indices.tolist()
        pictures = [
            Picture(
                found.pictures[place],
                "",
                f"found by query {query + 1}, place {number}",
                marked=found.said[place] == found.said[query],
            )
            for number, place in enumerate(best, start=1)
        ]
        cards.append([Strip(f"{found.said[query]} (own picture: place {rank} of {len(found.pictures)})", pictures)])
    return cards


def match_words(found: Found, names: Sequence[str]) -> str:
    """What the gallery shows, as HTML."""
    ranks = found.ranks()
    share = sum(rank <= NEIGHBOURS for rank in ranks) / len(ranks)
    chance = min(1.0, NEIGHBOURS / len(ranks))
    return (
        f"Above each row what the {escape(names[1])} of a sample says, in it those of {len(ranks):,} pictures that it "
        f'matches best. <span class="key">Outlined</span> are those of which just that is said. Over all queries the '
        f"own picture is among the five for {percent(share, 1)}, by chance for {percent(chance, 1)}."
    )


def gain_table(streams: Mapping[str, Any]) -> str:
    """How far off predictions of the first stream are, with the second and without, as HTML; empty where unknown."""
    if "gain" not in streams:
        return ""
    first, second = streams["names"]
    section = streams["gain"]
    rows = "".join(
        f"<tr><td>{words}</td><td>{_number(section['error'][name])}</td><td>{_change(section, name)}</td></tr>"
        for name, words in _ERRORS.items()
    )
    head = f"<th>{escape(second)} in the context</th><th>error</th><th>less than without</th>"
    return (
        f"<h2>Does the {escape(second)} help to predict the {escape(first)}?</h2>\n<p>{escape(gain_sentence(streams))} "
        "Hidden and seen tokens of each sample are the same in all rows; the error is the distance of the run's loss, "
        "± the standard error of paired differences.</p>\n"
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>'
    )


def _number(error: float | None) -> str:
    return "-" if error is None else f"{error:.4f}"


def _change(section: Mapping[str, Any], name: str) -> str:
    difference = section.get(f"without_minus_{name}", {})
    if difference.get("mean") is None:
        return "-"
    error = difference["standard_error"]
    spread = "" if error is None else f' <span class="spread">± {error:.4f}</span>'
    return f"{difference['mean']:.4f}{spread}"
