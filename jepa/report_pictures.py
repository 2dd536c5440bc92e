"""Pictures of a report: masks over inputs, features as colours, nearest neighbours."""

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import default_collate

from jepa.data import seeded, to_device
from jepa.encoder import Encoder
from jepa.modality import BadSampleError, Modality, Sample, Samples
from jepa.positions import Grid

MASKED, COLOURED, QUERIES, NEIGHBOURS = 6, 6, 6, 5
_FITTED = 64  # samples whose tokens decide the colours of features
_SIDE, _SMALL_SIDE = 176, 96  # pixels of the longer side on the page
_BLOCKS = ((255, 176, 0), (0, 160, 230), (230, 70, 130), (60, 190, 90), (150, 100, 240), (240, 110, 50))


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery; `marked` ones are outlined."""

    pixels: Tensor  # uint8 [H, W, 3]
    caption: str
    alt: str
    marked: bool = False

    def png(self) -> str:
        """As a data URI."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels.numpy()).save(buffer, "PNG")
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class Strip:
    """Pictures side by side under a title, which may be empty."""

    title: str
    pictures: list[Picture]


Card = list[Strip]  # what belongs together about one sample


@dataclass(frozen=True)
class Shown:
    """Samples that are shown, and what the encoders make of them, by the encoder's name."""

    pictures: list[Tensor]  # uint8 [H, W, 3]
    classes: list[str]  # "" where not known
    tokens: Mapping[str, Tensor]  # [m, N, D] of the first ones
    pooled: Mapping[str, Tensor]  # [n, D]


@torch.inference_mode()
def look(modality: Modality[Any], samples: Samples, encoders: Mapping[str, Encoder], limit: int) -> Shown:
    """Read and encode up to `limit` samples, in an order that is always the same; none where there are no pictures."""
    pictures: list[Tensor] = []
    classes: list[str] = []
    tokens: dict[str, list[Tensor]] = {name: [] for name in encoders}
    pooled: dict[str, list[Tensor]] = {name: [] for name in encoders}
    readable = islice(_readable(samples), limit)
    while part := list(islice(readable, _FITTED)):
        views = [modality.evaluation_view(sample.inputs) for sample in part]
        drawn = [picture for picture in map(modality.picture, views) if picture is not None]
        if len(drawn) < len(views):
            break
        pictures += drawn
        classes += [_class_name(modality, sample) for sample in part]
        inputs = default_collate(views)
        for name, encoder in encoders.items():
            encoded = encoder(to_device(inputs, encoder.norm.weight.device)).float().cpu()  # [B, N, D]
            tokens[name].append(encoded[: _FITTED if not tokens[name] else 0])
            pooled[name].append(encoded.mean(dim=1))
    if not pictures:
        return Shown([], [], {}, {})
    joined = ({name: torch.cat(parts) for name, parts in kept.items()} for kept in (tokens, pooled))
    return Shown(pictures, classes, *joined)


def mask_gallery(modality: Modality[Any], shown: Shown) -> list[Card]:
    """Of a sample its picture, the context and the targets of every set of masks."""
    pictures = [_resized(picture, _SIDE) for picture in shown.pictures[:MASKED]]
    sets = modality.sample_masks(len(pictures), seeded("report"))
    cards = []
    for index, picture in enumerate(pictures):
        strip = [Picture(picture, "input", f"input {index + 1}")]
        for masks in sets:
            context = _cells(masks.context[index], modality.grid)
            blocks = [_cells(block, modality.grid) for block in masks.target[index]]
            strip.append(Picture(with_context(picture, context), "context", f"context tokens of input {index + 1}"))
            strip.append(Picture(with_targets(picture, blocks), "targets", f"target blocks of input {index + 1}"))
        cards.append([Strip("", strip)])
    return cards


def feature_gallery(shown: Shown, grid: Grid) -> list[Card]:
    """Of a sample its picture and, for every encoder, its tokens as colours."""
    colours = {name: as_colours(tokens) for name, tokens in shown.tokens.items()}  # [m, N, 3]
    cards = []
    for index, picture in enumerate(_resized(picture, _SIDE) for picture in shown.pictures[:COLOURED]):
        strip = [Picture(picture, "input", f"input {index + 1}")]
        for name, drawn in colours.items():
            pixels = _spread(drawn[index].unflatten(0, grid), picture)
            strip.append(Picture(pixels, name, f"features of input {index + 1}, {name} encoder"))
        cards.append([Strip("", strip)])
    return cards


def neighbour_gallery(shown: Shown) -> list[Card]:
    """Of a sample its picture and, for every encoder, the pictures whose pooled features point the same way most."""
    nearest = {name: neighbours(pooled) for name, pooled in shown.pooled.items()}
    cards = []
    for query in range(min(QUERIES, len(shown.pictures))):
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
    return Picture(_resized(shown.pictures[index], _SMALL_SIDE), name, f"{name} {role}".strip(), marked=alike)


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


def with_context(picture: Tensor, context: Tensor) -> Tensor:
    """Hatch what is hidden: uint8 [H, W, 3], bool [rows, columns] -> uint8 [H, W, 3]."""
    visible = _spread(context.unsqueeze(-1), picture)
    diagonals = torch.arange(picture.shape[0]).unsqueeze(-1) + torch.arange(picture.shape[1])  # [H, W]
    hatch = torch.where(diagonals % 8 < 2, 160, 205).byte().unsqueeze(-1)
    return torch.where(visible, picture, hatch)


def with_targets(picture: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """Fade all but the blocks, tint and outline each: uint8 [H, W, 3], bool [rows, columns] each -> uint8 [H, W, 3]."""
    drawn = _faded(picture, 0.3).float()
    areas = [_spread(block.unsqueeze(-1), picture) for block in blocks]
    colours = [torch.tensor(_BLOCKS[place % len(_BLOCKS)]).float() for place in range(len(blocks))]
    for area, colour in zip(areas, colours, strict=True):
        drawn = torch.where(area, 0.65 * picture + 0.35 * colour, drawn)
    for area, colour in zip(areas, colours, strict=True):
        outside = F.pad((~area[..., 0]).float()[None, None], (2, 2, 2, 2), value=1.0)
        edge = area[..., 0] & (F.max_pool2d(outside, 5, stride=1)[0, 0] > 0)
        drawn[edge] = colour
    return drawn.round().byte()


def mosaic(cards: Sequence[Card]) -> Image.Image:
    """All cards of a gallery in one picture on white, with their captions."""
    gap, text = 6, 16
    first = [picture for strip in cards[0] for picture in strip.pictures]
    height, width = first[0].pixels.shape[:2]
    columns = max(1, 9 // len(first))
    size = (len(first) * (width + gap) + 3 * gap, height + text + gap)
    page = Image.new("RGB", (columns * size[0], math.ceil(len(cards) / columns) * size[1]), "white")
    draw = ImageDraw.Draw(page)
    for place, card in enumerate(cards):
        left, top = place % columns * size[0] + gap, place // columns * size[1] + gap
        for strip in card:
            for number, picture in enumerate(strip.pictures):
                words = [strip.title if number == 0 else "", picture.caption]
                page.paste(Image.fromarray(picture.pixels.numpy()), (left, top))
                draw.text((left + 2, top + height + 1), ": ".join(filter(None, words)), fill="#444444")
                left += width + gap
            left += gap
    return page


def _readable(samples: Samples) -> Iterator[Sample]:
    for index in torch.randperm(len(samples), generator=seeded("report")).tolist():
        try:
            yield samples[index]
        except BadSampleError:
            continue


def _class_name(modality: Modality[Any], sample: Sample) -> str:
    for task in modality.tasks:
        if task.kind == "class" and task.label in sample.labels:
            number = int(sample.labels[task.label])
            return task.classes[number] if number < len(task.classes) else str(number)
    return ""


def _resized(picture: Tensor, side: int) -> Tensor:
    """Scale so that the longer side has this many pixels: uint8 [H, W, 3] -> uint8 [H', W', 3]."""
    height, width = picture.shape[:2]
    size = [max(1, round(side * length / max(height, width))) for length in (height, width)]
    scaled = F.interpolate(picture.permute(2, 0, 1)[None].float(), size, mode="bicubic", antialias=True)
    return scaled[0].permute(1, 2, 0).round().clamp(0, 255).byte().contiguous()


def _cells(indices: Tensor, grid: Grid) -> Tensor:
    """Token indices [K] -> bool [rows, columns]."""
    return torch.zeros(math.prod(grid), dtype=torch.bool).index_fill(0, indices, True).reshape(grid)


def _spread(cells: Tensor, picture: Tensor) -> Tensor:
    """Every cell over its part of a picture: [rows, columns, C], [H, W, 3] -> [H, W, C]."""
    height, width = picture.shape[:2]
    rows, columns = torch.arange(height) * len(cells) // height, torch.arange(width) * cells.shape[1] // width
    return cells[rows][:, columns].contiguous()


def _faded(picture: Tensor, kept: float) -> Tensor:
    """Grey of low contrast: uint8 [H, W, 3] -> uint8 [H, W, 3]."""
    grey = picture.float().mean(dim=-1, keepdim=True).expand_as(picture)
    return (kept * grey + (1 - kept) * 128).round().byte()
