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
    """Input of the towers: pixels float [3, H, W] and the caption as token ids int64 [L], or batches of them."""

    image: Tensor
    text: Tensor


class TwoTowers(TokenEncoder):
    """Two towers of open_clip, each over its own tokens; if their widths differ, a linear layer maps the text tokens.

    Tokens as `Layout` orders them: [B, P + L + 2, D], with the width D of the image tower.
    """

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.image, self.text = towers.image, towers.text
        self.layout = Layout(towers.image.grid, towers.text.length)
        self.dim = towers.image.width
        self.words = _joint(towers.text.width, self.dim)
        self.image_summary, self.text_summary = _joint(towers.embed_dim, self.dim), _joint(towers.embed_dim, self.dim)

    def outputs(self, inputs: View, masks: Masks | None = None) -> list[Tensor]:
        """The only output of the towers: [B, N or Kc, D], normed as in open_clip."""
        if masks is None:
            every = torch.arange(sum(self.layout.sizes), device=inputs.text.device).expand(len(inputs.text), -1)
            masks = Masks.of_context(every, self.layout.sizes)
        return [self._encode(inputs, masks, {})]

    def layers(self, inputs: View, masks: Masks | None = None) -> list[Tensor]:
        """The only output of the towers, see `outputs`."""
        return self.outputs(inputs, masks)

    def contexts(self, inputs: View, sets: Sequence[Masks]) -> list[Tensor]:
        """Encoded contexts of several sets of masks; sets that keep the same tokens of a tower share its pass."""
        done: TowerOutputs = {}
        return [self._encode(inputs, masks, done) for masks in sets]

    def _encode(self, inputs: View, masks: Masks, done: "TowerOutputs") -> Tensor:
        patches, words, image, text = masks.parts
        of_image = masks.context[:, :patches]
        of_text = masks.context[:, patches : patches + words] - self.layout.patches
        nothing = [masks.context.new_empty(0)] * 2
        from_image = self._tower("image", inputs.image, of_image, masks.draw, done) if patches else nothing
        from_text = self._tower("text", inputs.text, of_text, masks.draw, done) if words else nothing
        groups = (from_image[0], patches), (from_text[0], words), (from_image[1], image), (from_text[1], text)
        return torch.cat([tokens for tokens, count in groups if count], dim=1)

    def pool(self, tokens: Tensor, masks: Masks | None = None) -> dict[str, Tensor]:
        """The summary tokens of image and caption, if they are among the tokens."""
        *_, image, text = (masks.parts if masks is not None else ()) or self.layout.sizes
        pooled = {"image": tokens[:, -1 - text]} if image else {}
        return pooled | ({"text": tokens[:, -1]} if text else {})

    def valid(self, inputs: View) -> Tensor:
        """All tokens but the padding of captions: bool [B, N]."""
        words = self.text.valid(inputs.text)
        return torch.cat([words.new_ones(len(words), self.layout.patches), words, words.new_ones(len(words), 2)], dim=1)

    def load_pretrained(self, config: Any) -> None:
        """Load the pretrained weights of the towers that the config names, if any."""
        if config.pretrained is not None:
            towers = config.build(config.pretrained)
            self.image.load_state_dict(towers.image.state_dict())
            self.text.load_state_dict(towers.text.state_dict())

    def fsdp_units(self) -> Iterable[nn.Module]:
        """The transformer blocks of both towers."""
        return [*self.image.blocks(), *self.text.blocks()]

    @property
    def activation_checkpointing(self) -> bool:
        """Whether the towers recompute their activations in the backward pass."""
        return self.image.activation_checkpointing

    @activation_checkpointing.setter
    def activation_checkpointing(self, enabled: bool) -> None:
        self.image.activation_checkpointing = self.text.activation_checkpointing = enabled

    def _tower(
        self, name: Literal["image", "text"], inputs: Tensor, keep: Tensor, draw: int | None, done: "TowerOutputs"
    ) -> list[Tensor]:
        """Tokens and summary token of a tower: [B, K, D], [B, 1, D]; `done` holds the outputs of earlier calls."""
        complete = keep.shape[1] == self.layout.sizes[name == "text"]
        key = (name, "whole" if complete else draw)
        if key in done:
            return done[key]
        tower, joint, summary = {
            "image": (self.image, nn.Identity(), self.image_summary),
            "text": (self.text, self.words, self.text_summary),
        }[name]
        pooled, tokens = tower(inputs, None if complete else keep)
        outputs = [joint(tokens), summary(pooled).unsqueeze(1)]
        if complete or draw is not None:
            done[key] = outputs
        return outputs


TowerOutputs = dict[tuple[str, int | str | None], list[Tensor]]  # by tower, and by the draw of its tokens


def _joint(width: int, dim: int) -> nn.Module:
    """Map from one width to another: the identity if they are equal, otherwise an orthogonal linear layer."""
    if width == dim:
        return nn.Identity()
    layer = nn.Linear(width, dim)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
