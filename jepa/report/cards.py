"""Cards of a gallery: still or moving pictures, as data URIs for the page and as one PNG."""

import base64
import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

_LOOP = 2400  # milliseconds per loop of a moving picture
_QUALITY = 65  # of animated WebP
_FRAMES_PER_CARD = 12  # side by side in the PNG, in total over all pictures of a card
_GAP = 2  # pixels between frames
_LETTER = 5  # approximate width of a letter in pixels


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery."""

    pixels: Tensor  # uint8 [H, W, 3], or moving [T, H, W, 3]
    caption: str
    alt: str
    outlined: bool = False

    @property
    def moving(self) -> bool:
        """Whether it has several frames."""
        return self.pixels.dim() == 4

    def data_uri(self) -> str:
        """As a data URI: PNG, or animated WebP."""
        if not self.moving:
            return _uri(Image.fromarray(self.pixels.numpy()), "PNG")
        first, *others = [Image.fromarray(frame.numpy()) for frame in self.pixels]
        moving = {"save_all": True, "append_images": others, "duration": max(50, _LOOP // len(self.pixels)), "loop": 0}
        return _uri(first, "WEBP", **moving, quality=_QUALITY, method=4)

    def still_uri(self) -> str:
        """The middle frame of a moving picture as a data URI, for readers who prefer reduced motion."""
        return _uri(Image.fromarray(self.pixels[len(self.pixels) // 2].numpy()), "WEBP")

    def contact_sheet(self, frames: int) -> Image.Image:
        """A still picture: of a moving one, this many frames side by side."""
        if not self.moving:
            return Image.fromarray(self.pixels.numpy())
        indices = ((torch.arange(frames) + 0.5) * len(self.pixels) / frames).long()
        gap = self.pixels.new_full((self.pixels.shape[1], _GAP, 3), 255)
        parts = [part for index in indices.tolist() for part in (gap, self.pixels[index])]
        return Image.fromarray(torch.cat(parts[1:], dim=1).numpy())


@dataclass(frozen=True)
class Strip:
    """Pictures side by side under a title, which may be empty."""

    title: str
    pictures: list[Picture]


Card = list[Strip]  # all strips of one sample


def mosaic(cards: Sequence[Card]) -> Image.Image:
    """All cards of a gallery with their captions in one picture on white."""
    gap, text = 6, 16
    first = [picture for strip in cards[0] for picture in strip.pictures]
    frames = max(1, _FRAMES_PER_CARD // len(first))
    width, height = first[0].contact_sheet(frames).size
    columns = 1 if first[0].moving else max(1, 9 // len(first))
    size = (len(first) * (width + gap) + 3 * gap, height + text + gap)
    page = Image.new("RGB", (columns * size[0], math.ceil(len(cards) / columns) * size[1]), "white")
    draw = ImageDraw.Draw(page)
    for index, card in enumerate(cards):
        left, top = index % columns * size[0] + gap, index // columns * size[1] + gap
        for strip in card:
            for number, picture in enumerate(strip.pictures):
                caption = [strip.title if number == 0 else "", picture.caption]
                page.paste(picture.contact_sheet(frames), (left, top))
                free = (width + gap) * (1 if picture.caption else len(strip.pictures))
                draw.text((left + 2, top + height + 1), shorten(": ".join(filter(None, caption)), free), fill="#444444")
                left += width + gap
            left += gap
    return page


def shorten(text: str, width: int) -> str:
    """The text cut to one line of `width` pixels."""
    return textwrap.shorten(text, max(12, width // _LETTER), placeholder=" ...")


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
