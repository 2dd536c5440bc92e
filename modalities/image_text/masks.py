"""Which parts of images and captions are hidden: the objectives of a JEPA across the two, as masks over one token set.

Tokens, in this order: the patches of the image row by row, the places of the caption, what stands for the whole image
and what stands for the whole caption.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from jepa.masking import Masks, Strategy, sample_masks
from jepa.masking.blocks import random_tokens, token_indices
from jepa.modality import Stream
from jepa.positions import Grid, grid_positions

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, eq=False)
class PairMasks(Masks):
    """Masks over both streams. draw: sets with equal `draw` keep the same patches, so the image tower runs once."""

    draw: int | None = field(default=None, kw_only=True)


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """What is hidden, each in this share of the steps; a step in which none falls due hides the regions.

    regions: parts of the image; the caption helps to predict them, but for the share `drop_caption` of these steps, in
    which they are predicted from the rest of the image alone. caption: the whole caption, predicted from the image, of
    which it sees the `whole` or, at less cost, the patches that a draw of regions leaves (`kept`; so contrasts are
    learned by Li et al. 2023, FLIP). image: the whole image, predicted from the caption. words: the share
    `hidden_words` of the places of the caption and, with them, what stands for the whole; the image and the words left
    over help: a query, as VL-JEPA has it (Chen et al. 2025). whole: of a hidden caption or image either what stands
    for it (`summary`) is predicted, or that and every token (`all`).
    """

    regions: Share = 1.0
    drop_caption: Share = 0.25
    caption: Share = 1.0
    image: Share = 1.0
    words: Share = 0.0
    hidden_words: Annotated[float, Field(gt=0, lt=1)] = 0.5
    whole: Literal["summary", "all"] = "summary"
    caption_from: Literal["whole", "kept"] = "whole"

    def __post_init__(self) -> None:
        if not (self.regions or self.caption or self.image or self.words):
            raise ValueError("all objectives are 0; at least one of regions, caption, image and words must not be")

    @property
    def contrasts(self) -> bool:
        """Whether every step pools images and whole captions, which a contrast compares."""
        return self.caption == self.image == 1

    @property
    def drops_at_times(self) -> bool:
        """Whether regions are predicted with the caption in some steps and without it in others."""
        others = max(self.caption, self.image, self.words)
        return (self.regions > 0 or others < 1) and 0 < self.drop_caption < 1


@dataclass(frozen=True)
class Layout:
    """Where the tokens of an image and its caption lie."""

    grid: Grid  # patches of the image
    length: int  # places of the caption

    @property
    def patches(self) -> int:
        """Patches of the image."""
        return self.grid[0] * self.grid[1]

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Patches, places of the caption, and one each for what stands for the whole image and the whole caption."""
        return self.patches, self.length, 1, 1

    @property
    def image(self) -> Stream:
        """The tokens of the image."""
        whole = self.patches + self.length
        return Stream("image", torch.tensor([*range(self.patches), whole]), whole, (self.patches, 0, 1, 0))

    @property
    def text(self) -> Stream:
        """The tokens of the caption."""
        whole = self.patches + self.length + 1
        places = range(self.patches, self.patches + self.length)
        return Stream("text", torch.tensor([*places, whole]), whole, (0, self.length, 0, 1))

    @property
    def positions(self) -> Tensor:
        """Coordinates (stream, row or place, column): [N, 3]; what stands for a whole lies before its first token."""
        image = torch.nn.functional.pad(grid_positions(self.grid), (1, 0))
        text = torch.zeros(self.length, 3)
        text[:, 0], text[:, 1] = 1, torch.arange(self.length)
        return torch.cat([image, text, torch.tensor([[0.0, -1.0, -1.0], [1.0, -1.0, 0.0]])])


def sample_objectives(
    layout: Layout, objectives: Objectives, strategy: Strategy, batch_size: int, generator: Generator
) -> list[Masks]:
    """The sets of masks of a step, drawn with the generator (on the CPU)."""
    due = {
        name: bool(torch.rand((), generator=generator) < getattr(objectives, name))
        for name in ("regions", "caption", "image", "words", "drop_caption")
    }
    patches = sample_masks(layout.grid, strategy, batch_size, generator)
    sets = []
    if due["regions"] or not any(due[name] for name in ("caption", "image", "words")):
        sets.append(_regions(layout, patches, due["drop_caption"]))
    if due["caption"]:
        caption = _whole(layout.image, layout.text, objectives.whole, batch_size)
        if objectives.caption_from == "kept":
            caption = replace(_regions(layout, patches, drop_caption=True), target=caption.target)
        sets.append(caption)
    if due["image"]:
        sets.append(_whole(layout.text, layout.image, objectives.whole, batch_size))
    if due["words"]:
        sets.append(_words(layout, _hidden_places(layout, objectives), batch_size, generator))
    return sets


def check_words(layout: Layout, objectives: Objectives) -> None:
    """Raise ValueError where the share of hidden words comes to none or all of the places of the caption."""
    hidden = _hidden_places(layout, objectives)
    if objectives.words and not 0 < hidden < layout.length:
        raise ValueError(
            f"objectives: hidden_words of {objectives.hidden_words} hides {hidden} of {layout.length} places of the "
            "caption; at least one has to be hidden and one seen"
        )


def _hidden_places(layout: Layout, objectives: Objectives) -> int:
    return round(objectives.hidden_words * layout.length)


def both_regions(layout: Layout, strategy: Strategy, batch_size: int, generator: Generator) -> tuple[Masks, Masks]:
    """The same hidden regions with the caption in the context and without it."""
    patches = sample_masks(layout.grid, strategy, batch_size, generator)
    return _regions(layout, patches, drop_caption=False), _regions(layout, patches, drop_caption=True)


def _regions(layout: Layout, patches: Masks, drop_caption: bool) -> Masks:
    """Masks of patches over the whole token set, with the caption in the context unless it is dropped."""
    batch, kept = patches.context.shape
    if drop_caption:
        return PairMasks(_with(patches.context, layout.image.summary), patches.target, (kept, 0, 1, 0), draw=0)
    places = layout.text.tokens[:-1].expand(batch, -1)
    context = torch.cat([patches.context, places], dim=1)
    context = _with(_with(context, layout.image.summary), layout.text.summary)
    return PairMasks(context, patches.target, (kept, layout.length, 1, 1), draw=0)


def _whole(seen: Stream, hidden: Stream, what: Literal["summary", "all"], batch_size: int) -> Masks:
    target = hidden.tokens if what == "all" else torch.tensor([hidden.summary])
    return Masks(seen.tokens.expand(batch_size, -1), target.expand(batch_size, 1, -1), seen.parts)


def _words(layout: Layout, hidden: int, batch_size: int, generator: Generator) -> Masks:
    every = torch.ones(batch_size, layout.length, dtype=torch.bool)
    target = random_tokens(every, hidden, generator)
    context = torch.cat([layout.image.tokens[:-1].expand(batch_size, -1), token_indices(~target) + layout.patches], 1)
    kept = (layout.patches, layout.length - hidden, 1, 0)
    return Masks(
        _with(context, layout.image.summary),
        _with(token_indices(target) + layout.patches, layout.text.summary).unsqueeze(1),
        kept,
    )


def _with(indices: Tensor, token: int) -> Tensor:
    """Indices [B, n] and a token that comes after all of them: [B, n + 1]."""
    return torch.nn.functional.pad(indices, (0, 1), value=token)
