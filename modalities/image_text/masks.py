"""The objectives of a JEPA across images and captions, as masks over one set of tokens.

Tokens, in this order: image patches row by row, words of the caption, the summary of the image, that of the caption.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from jepa.config.effects import Use
from jepa.masking import Masks, Strategy, own_generator, sample_masks
from jepa.masking.blocks import random_tokens, token_indices
from jepa.modality import Stream
from jepa.positions import Grid, grid_positions

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """Share of the steps in which each part is hidden and predicted; a step that draws none hides regions.

    regions: regions of the image, predicted from its other patches and the caption; in the share `drop_caption` of
    these steps, from the other patches alone. caption: the whole caption, predicted from the image. caption_from: it
    sees the `whole` image, or at less cost only the patches that are `kept` when regions are hidden (as in FLIP, Li et
    al. 2023). image: the whole image, predicted from the caption. words: the share `hidden_words` of the caption's
    words and its summary, predicted from the image and the other words (a query, as in VL-JEPA, Chen et al. 2025).
    whole: of a hidden caption or image, predict the `summary` token, or `all` of its tokens.
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
            raise ValueError("all objectives are 0; set at least one of regions, caption, image and words above 0")

    def no_effect(self, use: Use) -> dict[str, str]:
        """Settings without effect, each with the reason."""
        found = {}
        if not self.hides_regions:
            found["drop_caption"] = "no objective hides regions"
        if not self.words:
            found["hidden_words"] = "data.objectives.words is 0"
        if not self.caption:
            found["caption_from"] = "data.objectives.caption is 0"
        if not (self.caption or self.image):
            found["whole"] = "neither a whole caption nor a whole image is hidden"
        return found

    @property
    def hides_regions(self) -> bool:
        """Whether some steps hide regions of the image."""
        return self.regions > 0 or max(self.caption, self.image, self.words) < 1

    @property
    def contrasts(self) -> bool:
        """Whether every step encodes whole images and whole captions, which a contrast compares."""
        return self.caption == self.image == 1

    @property
    def drops_at_times(self) -> bool:
        """Whether some steps predict regions with the caption and others without it."""
        return self.hides_regions and 0 < self.drop_caption < 1


@dataclass(frozen=True)
class Layout:
    """Order and positions of the tokens of an image and its caption."""

    grid: Grid  # patches of the image
    length: int  # words of the caption

    @property
    def patches(self) -> int:
        """Number of patches of the image."""
        return self.grid[0] * self.grid[1]

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Number of patches, words, image summaries (1) and caption summaries (1)."""
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
        words = range(self.patches, self.patches + self.length)
        return Stream("text", torch.tensor([*words, whole]), whole, (0, self.length, 0, 1))

    @property
    def positions(self) -> Tensor:
        """Coordinates (stream, row or word, column): [N, 3]; a summary lies before the first token of its stream."""
        image = torch.nn.functional.pad(grid_positions(self.grid), (1, 0))
        text = torch.zeros(self.length, 3)
        text[:, 0], text[:, 1] = 1, torch.arange(self.length)
        return torch.cat([image, text, torch.tensor([[0.0, -1.0, -1.0], [1.0, -1.0, 0.0]])])


def sample_objectives(
    layout: Layout, objectives: Objectives, strategy: Strategy, batch_size: int, generator: Generator
) -> list[Masks]:
    """Draw the sets of masks of a step; the generator lives on the CPU."""
    drawn = {
        name: bool(torch.rand((), generator=generator) < getattr(objectives, name))
        for name in ("regions", "caption", "image", "words", "drop_caption")
    }
    patches = sample_masks(layout.grid, strategy, batch_size, generator)
    sets = []
    if drawn["regions"] or not any(drawn[name] for name in ("caption", "image", "words")):
        sets.append(_regions(layout, patches, drawn["drop_caption"]))
    if drawn["caption"]:
        caption = _whole(layout.image, layout.text, objectives.whole, batch_size)
        if objectives.caption_from == "kept":
            caption = replace(_regions(layout, patches, drop_caption=True), target=caption.target)
        sets.append(caption)
    if drawn["image"]:
        sets.append(_whole(layout.text, layout.image, objectives.whole, batch_size))
    if drawn["words"]:
        sets.append(_words(layout, _hidden_words(layout, objectives), batch_size, generator))
    return sets


def check_words(layout: Layout, objectives: Objectives) -> None:
    """Raise ValueError if the share of hidden words amounts to none or all words of the caption."""
    hidden = _hidden_words(layout, objectives)
    if objectives.words and not 0 < hidden < layout.length:
        raise ValueError(
            f"objectives: hidden_words={objectives.hidden_words} hides {hidden} of {layout.length} words of a caption; "
            "at least one must be hidden and one visible"
        )


def _hidden_words(layout: Layout, objectives: Objectives) -> int:
    return round(objectives.hidden_words * layout.length)


def both_regions(layout: Layout, strategy: Strategy, batch_size: int, generator: Generator) -> tuple[Masks, Masks]:
    """Masks with the same hidden regions, with and without the caption in the context."""
    patches = sample_masks(layout.grid, strategy, batch_size, generator)
    return _regions(layout, patches, drop_caption=False), _regions(layout, patches, drop_caption=True)


def _regions(layout: Layout, patches: Masks, drop_caption: bool) -> Masks:
    """Masks of patches as masks over all tokens, with the caption in the context unless it is dropped."""
    batch, kept = patches.context.shape
    if drop_caption:
        return Masks(_with(patches.context, layout.image.summary), patches.target, (kept, 0, 1, 0), draw=0)
    words = layout.text.tokens[:-1].expand(batch, -1)
    context = torch.cat([patches.context, words], dim=1)
    context = _with(_with(context, layout.image.summary), layout.text.summary)
    return Masks(context, patches.target, (kept, layout.length, 1, 1), draw=0)


def _whole(visible: Stream, hidden: Stream, what: Literal["summary", "all"], batch_size: int) -> Masks:
    target = hidden.tokens if what == "all" else torch.tensor([hidden.summary])
    return Masks(visible.tokens.expand(batch_size, -1), target.expand(batch_size, 1, -1), visible.parts)


def _words(layout: Layout, hidden: int, batch_size: int, generator: Generator) -> Masks:
    every = torch.ones(batch_size, layout.length, dtype=torch.bool)
    target = random_tokens(every, hidden, own_generator(generator))
    context = torch.cat([layout.image.tokens[:-1].expand(batch_size, -1), token_indices(~target) + layout.patches], 1)
    kept = (layout.patches, layout.length - hidden, 1, 0)
    return Masks(
        _with(context, layout.image.summary),
        _with(token_indices(target) + layout.patches, layout.text.summary).unsqueeze(1),
        kept,
    )


def _with(indices: Tensor, token: int) -> Tensor:
    """Append a token index to indices [B, n] -> [B, n + 1]."""
    return torch.nn.functional.pad(indices, (0, 1), value=token)
