"""The encoder of captioned images: an image tower and a text tower, whose tokens form one set."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from jepa.encoder import TokenEncoder
from jepa.masking import Masks
from modalities.image_text.masks import Layout
from modalities.image_text.towers import Towers


class View(NamedTuple):
    """What the towers see: pixels float [3, H, W] and the caption as token ids int64 [L], or batches of them."""

    image: Tensor
    text: Tensor


class TwoTowers(TokenEncoder):
    """Two towers of open_clip, each over its own tokens; where these differ in width, a linear layer makes them alike.

    Tokens as `Layout` orders them: [B, P + L + 2, D], with the width D of the image tower.
    """

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.image, self.text = towers.image, towers.text
        self.layout = Layout(towers.image.grid, towers.text.length)
        self.dim = towers.image.width
        self.words = _joint(towers.text.width, self.dim)
        self.image_summary, self.text_summary = _joint(towers.embed_dim, self.dim), _joint(towers.embed_dim, self.dim)

    def outputs(self, inputs: View, keep: Tensor | None = None, parts: Sequence[int] = ()) -> list[Tensor]:
        """The one output of the towers: [B, N or K, D], the tokens normed as open_clip does it."""
        if keep is None:
            keep, parts = torch.arange(sum(self.layout.sizes), device=inputs.text.device), self.layout.sizes
            keep = keep.expand(len(inputs.text), -1)
        return [self._encode(inputs, Masks(keep, keep.unsqueeze(1), tuple(parts)), {})]

    def layers(self, inputs: View, keep: Tensor | None = None, parts: Sequence[int] = ()) -> list[Tensor]:
        """The same."""
        return self.outputs(inputs, keep, parts)

    def contexts(self, inputs: View, masks: Sequence[Masks]) -> list[Tensor]:
        """Tokens kept by each of several sets of masks; for sets that show a tower the same tokens it runs once."""
        known: Known = {}
        return [self._encode(inputs, one, known) for one in masks]

    def _encode(self, inputs: View, masks: Masks, known: "Known") -> Tensor:
        patches, words, image, text = masks.parts
        of_image = masks.context[:, :patches]
        of_text = masks.context[:, patches : patches + words] - self.layout.patches
        nothing = [masks.context.new_empty(0)] * 2
        seen = self._tower("image", inputs.image, of_image, masks.draw, known) if patches else nothing
        said = self._tower("text", inputs.text, of_text, masks.draw, known) if words else nothing
        kept = (seen[0], patches), (said[0], words), (seen[1], image), (said[1], text)
        return torch.cat([tokens for tokens, count in kept if count], dim=1)

    def pool(self, tokens: Tensor, parts: Sequence[int] = (), present: Tensor | None = None) -> dict[str, Tensor]:
        """What stands for the whole of image and caption, where that is among the tokens."""
        *_, image, text = parts or self.layout.sizes
        pooled = {"image": tokens[:, -1 - text]} if image else {}
        return pooled | ({"text": tokens[:, -1]} if text else {})

    def present(self, inputs: View) -> Tensor:
        """Padding of captions is absent: bool [B, N]."""
        words = self.text.present(inputs.text)
        return torch.cat([words.new_ones(len(words), self.layout.patches), words, words.new_ones(len(words), 2)], dim=1)

    def start(self, config: Any) -> None:
        """Give the towers their pretrained weights, where the config names some."""
        if config.pretrained is not None:
            towers = config.build(config.pretrained)
            self.image.load_state_dict(towers.image.state_dict())
            self.text.load_state_dict(towers.text.state_dict())

    def units(self) -> Iterable[nn.Module]:
        """The blocks of both towers."""
        return [*self.image.blocks(), *self.text.blocks()]

    @property
    def activation_checkpointing(self) -> bool:
        """Whether the towers forget their activations."""
        return self.image.activation_checkpointing

    @activation_checkpointing.setter
    def activation_checkpointing(self, enabled: bool) -> None:
        self.image.activation_checkpointing = self.text.activation_checkpointing = enabled

    def _tower(
        self, name: Literal["image", "text"], inputs: Tensor, keep: Tensor, draw: int | None, known: "Known"
    ) -> list[Tensor]:
        """Tokens that a tower gives, and what stands for all of them: [B, K, D], [B, 1, D]; `known` remembers them."""
        complete = keep.shape[1] == self.layout.sizes[name == "text"]
        key = (name, "whole" if complete else draw)
        if key in known:
            return known[key]
        tower, joint, summary = {
            "image": (self.image, nn.Identity(), self.image_summary),
            "text": (self.text, self.words, self.text_summary),
        }[name]
        pooled, tokens = tower(inputs, None if complete else keep)
        found = [joint(tokens), summary(pooled).unsqueeze(1)]
        if complete or draw is not None:
            known[key] = found
        return found


Known = dict[tuple[str, int | str | None], list[Tensor]]  # what towers gave, by their name and what they saw


def _joint(width: int, dim: int) -> nn.Module:
    """What gives tokens of a width the width `dim`: nothing where they have it, or a linear layer that keeps angles."""
    if width == dim:
        return nn.Identity()
    layer = nn.Linear(width, dim)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
