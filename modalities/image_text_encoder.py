"""The encoder of captioned images: an image tower and a text tower, whose tokens form one set."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from jepa.encoder import TokenEncoder
from modalities.image_text_masks import Layout
from modalities.open_clip_towers import Towers


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
        kept = torch.arange(sum(self.layout.sizes), device=inputs.text.device).expand(len(inputs.text), -1)
        return self.contexts(inputs, [(kept, self.layout.sizes) if keep is None else (keep, parts)])

    def layers(self, inputs: View, keep: Tensor | None = None, parts: Sequence[int] = ()) -> list[Tensor]:
        """The same."""
        return self.outputs(inputs, keep, parts)

    def contexts(self, inputs: View, sets: Sequence[tuple[Tensor, Sequence[int]]]) -> list[Tensor]:
        """Tokens kept by each of several sets of masks; a tower that sees all of its tokens in some runs once."""
        whole: dict[str, list[Tensor]] = {}
        contexts = []
        for keep, parts in sets:
            patches, words, image, text = parts
            of_image, of_text = keep[:, :patches], keep[:, patches : patches + words] - self.layout.patches
            seen = self._tower("image", inputs.image, of_image, whole) if patches else [keep.new_empty(0)] * 2
            said = self._tower("text", inputs.text, of_text, whole) if words else [keep.new_empty(0)] * 2
            kept = (seen[0], patches), (said[0], words), (seen[1], image), (said[1], text)
            contexts.append(torch.cat([tokens for tokens, count in kept if count], dim=1))
        return contexts

    def pool(self, tokens: Tensor, parts: Sequence[int] = (), present: Tensor | None = None) -> dict[str, Tensor]:
        """What stands for the whole of image and caption, where that is among the tokens."""
        *_, image, text = parts or self.layout.sizes
        pooled = {"image": tokens[:, -1 - text]} if image else {}
        return pooled | ({"text": tokens[:, -1]} if text else {})

    def present(self, inputs: View) -> Tensor:
        """Padding of captions is absent: bool [B, N]."""
        words = self.text.present(inputs.text)
        return torch.cat([words.new_ones(len(words), self.layout.patches), words, words.new_ones(len(words), 2)], dim=1)

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
        self, name: Literal["image", "text"], inputs: Tensor, keep: Tensor, whole: dict[str, list[Tensor]]
    ) -> list[Tensor]:
        """Tokens that a tower gives, and what stands for all of them: [B, K, D], [B, 1, D]; `whole` remembers."""
        tower, joint, summary = {
            "image": (self.image, nn.Identity(), self.image_summary),
            "text": (self.text, self.words, self.text_summary),
        }[name]
        complete = keep.shape[1] == self.layout.sizes[name == "text"]
        if complete and name in whole:
            return whole[name]
        pooled, tokens = tower(inputs, None if complete else keep)
        found = [joint(tokens), summary(pooled).unsqueeze(1)]
        if complete:
            whole[name] = found
        return found


def _joint(width: int, dim: int) -> nn.Module:
    """What gives tokens of a width the width `dim`: nothing where they have it, or a linear layer that keeps angles."""
    if width == dim:
        return nn.Identity()
    layer = nn.Linear(width, dim)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
