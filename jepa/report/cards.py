"""Cards of a gallery: pictures, still or moving, as data of the page and as one PNG."""

import base64
import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw
from torch import Tensor

_LOOP = 2400  # milliseconds of a moving picture
_QUALITY = 65  # of moving pictures, in WebP
_ABREAST = 12  # moments side by side in a PNG, over all pictures of a card
_GAP = 2  # pixels between them
_LETTER = 5  # pixels that a letter of a caption takes, about


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery; `marked` ones are outlined."""

    pixels: Tensor  # uint8 [H, W, 3], or moving [T, H, W, 3]
    caption: str
    alt: str
    marked: bool = False

    @property
    def moving(self) -> bool:
        """Whether it has several moments."""
        return self.pixels.dim() == 4

    def source(self) -> str:
        """As a data URI: PNG, or animated WebP."""
        if not self.moving:
            return _uri(Image.fromarray(self.pixels.numpy()), "PNG")
        first, *others = [Image.fromarray(moment.numpy()) for moment in self.pixels]
        buffer = io.BytesIO()
        lasting = max(50, _LOOP // len(self.pixels))
        first.save(
            buffer, "WEBP", save_all=True, append_images=others, duration=lasting, loop=0, quality=_QUALITY, method=4
        )
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()

    def still(self) -> str:
        """The moment in the middle of a moving picture as a data URI, for those who want no motion."""
        return _uri(Image.fromarray(self.pixels[len(self.pixels) // 2].numpy()), "WEBP")

    def flat(self, moments: int) -> Image.Image:
        """As a still picture: so many moments of a moving one side by side."""
        if not self.moving:
            return Image.fromarray(self.pixels.numpy())
        places = ((torch.arange(moments) + 0.5) * len(self.pixels) / moments).long()
        between = self.pixels.new_full((self.pixels.shape[1], _GAP, 3), 255)
        parts = [part for place in places.tolist() for part in (between, self.pixels[place])]
        return Image.fromarray(torch.cat(parts[1:], dim=1).numpy())


@dataclass(frozen=True)
class Strip:
    """Pictures side by side under a title, which may be empty."""

    title: str
    pictures: list[Picture]


Card = list[Strip]  # what belongs together about one sample


def mosaic(cards: Sequence[Card]) -> Image.Image:
    """All cards of a gallery in one picture on white, with their captions."""
    gap, text = 6, 16
    first = [picture for strip in cards[0] for picture in strip.pictures]
    moments = max(1, _ABREAST // len(first))
    width, height = first[0].flat(moments).size
    columns = 1 if first[0].moving else max(1, 9 // len(first))
    size = (len(first) * (width + gap) + 3 * gap, height + text + gap)
    page = Image.new("RGB", (columns * size[0], math.ceil(len(cards) / columns) * size[1]), "white")
    draw = ImageDraw.Draw(page)
    for place, card in enumerate(cards):
        left, top = place % columns * size[0] + gap, place // columns * size[1] + gap
        for strip in card:
            for number, picture in enumerate(strip.pictures):
                words = [strip.title if number == 0 else "", picture.caption]
                page.paste(picture.flat(moments), (left, top))
                free = (width + gap) * (1 if picture.caption else len(strip.pictures))
                draw.text((left + 2, top + height + 1), fitting(": ".join(filter(None, words)), free), fill="#444444")
                left += width + gap
            left += gap
    return page


def fitting(words: str, width: int) -> str:
    """As much of the words as stands in one line of so many pixels."""
    return textwrap.shorten(words, max(12, width // _LETTER), placeholder=" ...")


def _uri(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
