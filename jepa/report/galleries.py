"""Galleries of a report: masks over inputs, features as colours, nearest neighbours, errors of what was predicted."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import default_collate

from jepa.data import seeded, to_device
from jepa.encoder import TokenEncoder, mean_tokens
from jepa.evaluate.features import grid_layers, grid_valid, samples_at_once
from jepa.evaluate.forecast import Forecaster, error_maps
from jepa.masking import Masks
from jepa.modality import BadSampleError, Modality, Sample, Samples, Stream
from jepa.positions import Grid
from jepa.report.cards import Card, Picture, Strip
from jepa.report.overlays import resized, spread, with_context, with_heat, with_targets

SHOWN, QUERIES, NEIGHBOURS = 6, 6, 5
_FITTED, _FITTED_TOKENS = 64, 65_536  # at most so many samples, and tokens of them, decide the colours of features
_SIDE, SMALL_SIDE = 176, 96  # pixels of the longer side on the page
_MOMENTS, FEW_MOMENTS = 16, 8  # of moving pictures of either size


@dataclass(frozen=True)
class Shown:
    """Samples that are shown, and what the encoders make of them, by the encoder's name."""

    pictures: list[Tensor]  # of the first ones, uint8 [H, W, 3], or moving [T, H, W, 3]
    thumbnails: list[Tensor]  # of all, smaller
    classes: list[str]  # "" where not known
    tokens: Mapping[str, Tensor]  # [m, N, D] of the first ones
    pooled: Mapping[str, Tensor]  # [n, D]
    inputs: Any  # of the first ones [m, ...], None where nothing is shown


@torch.inference_mode()
def look(modality: Modality[Any], samples: Samples, encoders: Mapping[str, TokenEncoder], limit: int) -> Shown:
    """Read and encode up to `limit` samples, in an order that is always the same; none where there are no pictures."""
    pictures: list[Tensor] = []
    thumbnails: list[Tensor] = []
    classes: list[str] = []
    tokens: dict[str, list[Tensor]] = {name: [] for name in encoders}
    pooled: dict[str, list[Tensor]] = {name: [] for name in encoders}
    kept, count = None, math.prod(modality.grid)
    readable = islice(_readable(modality, samples), limit)
    while part := list(islice(readable, max(SHOWN, samples_at_once(modality, _FITTED)))):
        drawn = [picture for _, view in part if (picture := modality.picture(view)) is not None]
        if len(drawn) < len(part):
            break
        pictures += [resized(picture, _SIDE, _MOMENTS) for picture in drawn[: max(0, SHOWN - len(pictures))]]
        thumbnails += [resized(picture, SMALL_SIDE, FEW_MOMENTS) for picture in drawn]
        classes += [_class_name(modality, sample) for sample, _ in part]
        inputs = default_collate([view for _, view in part])
        kept = tree_map(lambda leaf: leaf[:SHOWN], inputs) if kept is None else kept
        for name, encoder in encoders.items():
            whole = grid_layers(modality, encoder, inputs)[-1].float()
            vectors, encoded = mean_tokens(whole, grid_valid(modality, encoder, inputs)).cpu(), whole.cpu()  # [B, N, D]
            fitted = max(SHOWN, min(_FITTED, _FITTED_TOKENS // count)) - sum(map(len, tokens[name]))
            tokens[name].append(encoded[: max(0, fitted)])
            pooled[name].append(vectors)
    if not pictures:
        return Shown([], [], [], {}, {}, None)
    return Shown(pictures, thumbnails, classes, _joined(tokens), _joined(pooled), kept)


def _joined(parts: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat(list(tensors)) for name, tensors in parts.items()}


def mask_gallery(modality: Modality[Any], shown: Shown) -> list[Card]:
    """Of a sample its picture, the context and the targets of every set of masks, in words where there are streams."""
    sets = modality.sample_masks(len(shown.pictures), seeded("report"))
    cards = []
    for index, picture in enumerate(shown.pictures):
        card = [Strip("", [Picture(picture, "input", f"input {index + 1}")])]
        for masks in sets:
            context = _cells(masks.context[index], modality.grid)
            blocks = [_cells(block, modality.grid) for block in masks.target[index]]
            drawn = [
                Picture(with_context(picture, context), "context", f"context tokens of input {index + 1}"),
                Picture(with_targets(picture, blocks), "targets", f"target blocks of input {index + 1}"),
            ]
            card.append(Strip(mask_words(modality.streams, masks), drawn))
        cards.append(
            card if modality.streams else [Strip("", [picture for strip in card for picture in strip.pictures])]
        )
    return cards


def mask_words(streams: Sequence[Stream], masks: Masks) -> str:
    """How much of each stream is seen, and how much is predicted; empty where there is one kind of tokens."""
    if not streams:
        return ""
    seen, hidden = masks.context[0], masks.target[0].unique()
    told = []
    for words, tokens in (("seen", seen), ("predicted", hidden)):
        counts = [(stream, int(torch.isin(tokens, stream.tokens).sum())) for stream in streams]
        parts = [f"{_share(stream, count)} of {stream.name}" for stream, count in counts if count]
        told.append(f"{words}: {' and '.join(parts)}")
    return "; ".join(told)


def _share(stream: Stream, count: int) -> str:
    return f"all {count} tokens" if count == len(stream.tokens) else f"{count} of {len(stream.tokens)} tokens"


def feature_gallery(shown: Shown, grid: Grid) -> list[Card]:
    """Of a sample its picture and, for every encoder, its tokens as colours."""
    colours = {name: as_colours(tokens) for name, tokens in shown.tokens.items()}  # [m, N, 3]
    cards = []
    for index, picture in enumerate(shown.pictures):
        strip = [Picture(picture, "input", f"input {index + 1}")]
        for name, drawn in colours.items():
            pixels = spread(drawn[index].unflatten(0, grid), picture)
            strip.append(Picture(pixels, name, f"features of input {index + 1}, {name} encoder"))
        cards.append([Strip("", strip)])
    return cards


def error_gallery(shown: Shown, forecaster: Forecaster, grid: Grid) -> list[Card]:
    """Of a sample its picture and, over it, how wrong each prediction is of every token that is to come.

    Colours have one scale; the brightest are the 2 % that are most wrong.
    """
    maps = _error_maps(shown, forecaster, grid)
    worst = torch.cat([values.flatten() for values in maps.values()]).nanquantile(0.98).clamp_min(1e-9)
    cards = []
    for index, picture in enumerate(shown.pictures):
        strip = [Picture(picture, "input", f"input {index + 1}")]
        for name, errors in maps.items():
            words = f"{name}, error {float(errors[index].nanmean()):.2f}"
            heat = with_heat(picture, (errors[index] / worst).nan_to_num(), errors[index].isfinite())
            strip.append(Picture(heat, words, f"prediction errors on input {index + 1}: {words}"))
        cards.append([Strip("", strip)])
    return cards


@torch.inference_mode()
def _error_maps(shown: Shown, forecaster: Forecaster, grid: Grid) -> dict[str, Tensor]:
    """Errors of tokens by the way of predicting, not a number of what is seen: [m, *grid] each."""
    inputs = to_device(shown.inputs, next(forecaster.model.parameters()).device)
    target = forecaster.targets(inputs)
    found = {"predicted at once": forecaster.direct(inputs)}
    if forecaster.rolls:
        found["rolled on"] = forecaster.rolled(inputs)
    found["last seen repeated"] = forecaster.last_slot(inputs).unsqueeze(1).expand_as(target)
    maps = {}
    for name, forecast in found.items():
        errors = torch.full((len(target), math.prod(grid)), torch.nan)
        errors[:, torch.stack(forecaster.cut.future).flatten()] = error_maps(forecast, target).flatten(1).cpu()
        maps[name] = errors.unflatten(1, grid)
    return maps


def neighbour_gallery(shown: Shown) -> list[Card]:
    """Of a sample its picture and, for every encoder, the pictures whose pooled features point the same way most."""
    nearest = {name: neighbours(pooled) for name, pooled in shown.pooled.items()}
    cards = []
    for query in range(min(QUERIES, len(shown.thumbnails))):
        card = [Strip("query", [_small(shown, query, f"query {query + 1}")])]
        for name, found in nearest.items():
            near = f"near query {query + 1}, {name} encoder"
            card.append(Strip(name, [_small(shown, index, near, query) for index in found[query].tolist()]))
        cards.append(card)
    return cards


def _small(shown: Shown, index: int, role: str, query: int = -1) -> Picture:
    """One of the pictures, marked where it is of the class of `query`."""
    name = shown.classes[index]
    alike = query >= 0 and name != "" and name == shown.classes[query]
    return Picture(shown.thumbnails[index], name, f"{name} {role}".strip(), marked=alike)


def same_class(shown: Shown) -> dict[str, float]:
    """Share of nearest neighbours that are of the query's class, over all queries; empty without labels."""
    if not all(shown.classes):
        return {}
    names = sorted(set(shown.classes))
    labels = torch.tensor([names.index(name) for name in shown.classes])
    found = {name: labels[neighbours(pooled)] for name, pooled in shown.pooled.items()}
    chance = float((labels.bincount() / len(labels)).square().sum())
    shares = {name: float((classes == labels[:, None]).float().mean()) for name, classes in found.items()}
    return {**shares, "by chance": chance}


def neighbours(pooled: Tensor) -> Tensor:
    """Indices of the nearest others by the cosine of centred features: [n, D] -> [n, up to 5]."""
    normed = F.normalize(pooled - pooled.mean(dim=0), dim=-1)
    cosine: Tensor = (normed @ normed.T).fill_diagonal_(-2)
    return cosine.topk(min(NEIGHBOURS, len(pooled) - 1)).indices


def _readable(modality: Modality[Any], samples: Samples) -> Iterator[tuple[Sample, Any]]:
    """Samples in random order, with their view, which may be what decodes them."""
    for index in torch.randperm(len(samples), generator=seeded("report")).tolist():
        try:
            sample = samples[index]
            view = modality.evaluation_view(sample.inputs)
        except BadSampleError:
            continue
        yield sample, view


def _class_name(modality: Modality[Any], sample: Sample) -> str:
    for task in modality.tasks:
        if task.kind == "class" and task.label in sample.labels:
            number = int(sample.labels[task.label])
            return task.classes[number] if number < len(task.classes) else str(number)
    return ""


def as_colours(tokens: Tensor) -> Tensor:
    """Three principal components as red, green and blue, one basis for all samples: [m, N, D] -> uint8 [m, N, 3].

    The mean over its tokens is taken from each sample, or the colours would tell samples apart and not their parts.
    """
    flat = (tokens - tokens.mean(dim=1, keepdim=True)).flatten(0, 1).double()  # [m N, D]
    axes = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -3:].flip(-1)  # [D, 3]
    strongest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))  # [1, 3]
    components = flat @ (axes * strongest.sign())  # the sign of an axis is arbitrary: its strongest entry is positive
    low, high = components.quantile(torch.tensor([0.02, 0.98], dtype=torch.double), dim=0)
    shares = ((components - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
    colours: Tensor = F.pad(shares, (0, 3 - shares.shape[-1])).mul(255).round().byte()
    return colours.reshape(*tokens.shape[:2], 3)


def _cells(indices: Tensor, grid: Grid) -> Tensor:
    """Token indices [K], of which those that lie on the grid -> bool [rows, columns]."""
    count = math.prod(grid)
    return torch.zeros(count, dtype=torch.bool).index_fill(0, indices[indices < count], True).reshape(grid)
