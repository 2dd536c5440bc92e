"""Galleries of a report: masks over inputs, features as colours, nearest neighbours, forecast errors."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

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
from jepa.probe.missing import nan_unless
from jepa.report.cards import Card, Picture, Strip
from jepa.report.overlays import resize, upsample, with_context, with_heat, with_targets

T = TypeVar("T")
SHOWN, QUERIES, NEIGHBOURS = 6, 6, 5
_COLOURED, _COLOURED_TOKENS = 64, 65_536  # limits on samples and tokens in the components behind feature colours
_SIDE, SMALL_SIDE = 176, 96  # longer side in pixels
_FRAMES, FEW_FRAMES = 16, 8  # limits on the frames of a moving picture, by size


@dataclass(frozen=True)
class GallerySamples:
    """n samples of the galleries, and their features by name of the encoder."""

    pictures: list[Tensor]  # of the first `SHOWN`, uint8 [H, W, 3], or moving [T, H, W, 3]
    thumbnails: list[Tensor]  # of all n, smaller
    classes: list[str]  # "" if unknown
    tokens: Mapping[str, Tensor]  # [m, N, D] of the first m
    pooled: Mapping[str, Tensor]  # [n, D]
    inputs: Any  # of the first `SHOWN` [B, ...]; None without pictures


@torch.inference_mode()
def gallery_samples(
    modality: Modality[Any], samples: Samples, encoders: Mapping[str, TokenEncoder], limit: int
) -> GallerySamples:
    """Read and encode up to `limit` samples in a fixed random order; none if the modality has no pictures."""
    pictures: list[Tensor] = []
    thumbnails: list[Tensor] = []
    classes: list[str] = []
    tokens: dict[str, list[Tensor]] = {name: [] for name in encoders}
    pooled: dict[str, list[Tensor]] = {name: [] for name in encoders}
    first_inputs, count = None, math.prod(modality.grid)
    shown = islice(readable(samples, lambda sample: (sample, modality.evaluation_view(sample.inputs))), limit)
    while part := list(islice(shown, max(SHOWN, samples_at_once(modality, _COLOURED)))):
        drawn = [picture for _, view in part if (picture := modality.picture(view)) is not None]
        if len(drawn) < len(part):
            break
        pictures += [resize(picture, _SIDE, _FRAMES) for picture in drawn[: max(0, SHOWN - len(pictures))]]
        thumbnails += [resize(picture, SMALL_SIDE, FEW_FRAMES) for picture in drawn]
        classes += [_class_name(modality, sample) for sample, _ in part]
        inputs = default_collate([view for _, view in part])
        first_inputs = tree_map(lambda leaf: leaf[:SHOWN], inputs) if first_inputs is None else first_inputs
        for name, encoder in encoders.items():
            encoded = grid_layers(modality, encoder, inputs)[-1].float()  # [B, N, D]
            valid = grid_valid(modality, encoder, inputs)
            pooled[name].append(mean_tokens(encoded, valid).cpu())
            coloured = max(SHOWN, min(_COLOURED, _COLOURED_TOKENS // count)) - sum(map(len, tokens[name]))
            tokens[name].append(nan_unless(valid, encoded).cpu()[: max(0, coloured)])
    if not pictures:
        return GallerySamples([], [], [], {}, {}, None)
    of_tokens, of_samples = ({name: torch.cat(parts) for name, parts in named.items()} for named in (tokens, pooled))
    return GallerySamples(pictures, thumbnails, classes, of_tokens, of_samples, first_inputs)


def mask_gallery(modality: Modality[Any], samples: GallerySamples) -> list[Card]:
    """For each sample, its picture and the context and targets of every set of masks, titled if there are streams."""
    sets = modality.sample_masks(len(samples.pictures), seeded("report"))
    cards = []
    for index, picture in enumerate(samples.pictures):
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
    """Number of context and target tokens of each stream; empty without streams."""
    if not streams:
        return ""
    words = []
    for role, tokens in (("context", masks.context[0]), ("targets", masks.target[0].unique())):
        counts = [(stream, int(torch.isin(tokens, stream.tokens).sum())) for stream in streams]
        parts = [
            f"{'all' if count == len(stream.tokens) else f'{count} of'} {len(stream.tokens)} tokens of {stream.name}"
            for stream, count in counts
            if count
        ]
        words.append(f"{role}: {' and '.join(parts)}")
    return "; ".join(words)


def feature_gallery(samples: GallerySamples, grid: Grid) -> list[Card]:
    """For each sample, its picture and its token features of every encoder as colours."""
    colours = {name: as_colours(tokens) for name, tokens in samples.tokens.items()}  # [m, N, 3]
    cards = []
    for index, picture in enumerate(samples.pictures):
        strip = [Picture(picture, "input", f"input {index + 1}")]
        for name, drawn in colours.items():
            pixels = upsample(drawn[index].unflatten(0, grid), picture)
            strip.append(Picture(pixels, name, f"features of input {index + 1}, {name} encoder"))
        cards.append([Strip("", strip)])
    return cards


@torch.inference_mode()
def error_gallery(samples: GallerySamples, forecaster: Forecaster, grid: Grid) -> list[Card]:
    """For each sample, its picture and heat maps of forecast errors on one scale; the largest 2 % share a colour."""
    inputs = to_device(samples.inputs, next(forecaster.model.parameters()).device)
    target = forecaster.targets(inputs)
    found = {"predicted at once": forecaster.direct(inputs)}
    if forecaster.rolls:
        found["predicted slot by slot"] = forecaster.rolled(inputs)
    found["last slot repeated"] = forecaster.last_slot(inputs).unsqueeze(1).expand_as(target)
    maps = {}  # token errors of each forecast, NaN on the context: [m, *grid] each
    for name, forecast in found.items():
        errors = torch.full((len(target), math.prod(grid)), torch.nan)
        errors[:, torch.stack(forecaster.cut.future).flatten()] = error_maps(forecast, target).flatten(1).cpu()
        maps[name] = errors.unflatten(1, grid)
    worst = torch.cat([values.flatten() for values in maps.values()]).nanquantile(0.98).clamp_min(1e-9)
    cards = []
    for index, picture in enumerate(samples.pictures):
        strip = [Picture(picture, "input", f"input {index + 1}")]
        for name, errors in maps.items():
            caption = f"{name}, error {float(errors[index].nanmean()):.2f}"
            heat = with_heat(picture, (errors[index] / worst).nan_to_num(), errors[index].isfinite())
            strip.append(Picture(heat, caption, f"prediction errors on input {index + 1}: {caption}"))
        cards.append([Strip("", strip)])
    return cards


def neighbour_gallery(samples: GallerySamples) -> list[Card]:
    """For each query, the pictures with the most similar pooled features, by encoder."""
    nearest = {name: neighbours(pooled) for name, pooled in samples.pooled.items()}
    cards = []
    for query in range(min(QUERIES, len(samples.thumbnails))):
        card = [Strip("query", [_small(samples, query, f"query {query + 1}")])]
        for name, found in nearest.items():
            near = f"near query {query + 1}, {name} encoder"
            card.append(Strip(name, [_small(samples, index, near, query) for index in found[query].tolist()]))
        cards.append(card)
    return cards


def _small(samples: GallerySamples, index: int, role: str, query: int = -1) -> Picture:
    """A thumbnail, outlined if it has the class of `query`."""
    name = samples.classes[index]
    alike = query >= 0 and name != "" and name == samples.classes[query]
    return Picture(samples.thumbnails[index], name, f"{name} {role}".strip(), outlined=alike)


def same_class(samples: GallerySamples) -> dict[str, float]:
    """Share of nearest neighbours with the class of their query, and by chance; empty without labels."""
    if not all(samples.classes):
        return {}
    names = sorted(set(samples.classes))
    labels = torch.tensor([names.index(name) for name in samples.classes])
    found = {name: labels[neighbours(pooled)] for name, pooled in samples.pooled.items()}
    chance = float((labels.bincount() / len(labels)).square().sum())
    shares = {name: float((classes == labels[:, None]).float().mean()) for name, classes in found.items()}
    return {**shares, "by chance": chance}


def neighbours(pooled: Tensor) -> Tensor:
    """Indices of the nearest other samples by cosine of centred features: [n, D] -> [n, up to 5]."""
    normed = F.normalize(pooled - pooled.mean(dim=0), dim=-1)
    cosine: Tensor = (normed @ normed.T).fill_diagonal_(-2)
    return cosine.topk(min(NEIGHBOURS, len(pooled) - 1)).indices


def readable(samples: Samples, read: Callable[[Sample], T], limit: int | None = None) -> Iterator[T]:
    """Apply `read` to the first `limit` samples in a fixed random order; samples that cannot be read are left out."""
    for index in torch.randperm(len(samples), generator=seeded("report")).tolist()[:limit]:
        try:
            item = read(samples[index])  # may decode the inputs, so it may raise too
        except BadSampleError:
            continue
        yield item


def _class_name(modality: Modality[Any], sample: Sample) -> str:
    for task in modality.tasks:
        if task.kind == "class" and task.label in sample.labels:
            number = int(sample.labels[task.label])
            return task.classes[number] if number < len(task.classes) else str(number)
    return ""


def as_colours(tokens: Tensor) -> Tensor:
    """Three principal components as red, green and blue, one basis for all samples: [m, N, D] -> uint8 [m, N, 3].

    First subtracts the token mean of each sample; otherwise colours would separate samples, not their parts. Tokens
    that a sample lacks are NaN, and grey.
    """
    known = ~tokens[..., 0].isnan()  # [m, N]
    flat = (tokens - tokens.nanmean(dim=1, keepdim=True))[known].double()  # [tokens that exist, D]
    axes = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -3:].flip(-1)  # [D, 3]
    strongest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))  # [1, 3]
    components = flat @ (axes * strongest.sign())  # signs are arbitrary: make the strongest entry positive
    low, high = components.quantile(torch.tensor([0.02, 0.98], dtype=torch.double), dim=0)
    shares = ((components - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
    colours = torch.full((*known.shape, 3), 128, dtype=torch.uint8)
    colours[known] = F.pad(shares, (0, 3 - shares.shape[-1])).mul(255).round().byte()
    return colours


def _cells(indices: Tensor, grid: Grid) -> Tensor:
    """Token indices [K], of which some may lie off the grid -> bool [*grid]."""
    count = math.prod(grid)
    return torch.zeros(count, dtype=torch.bool).index_fill(0, indices[indices < count], True).reshape(grid)
