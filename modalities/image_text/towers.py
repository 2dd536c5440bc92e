"""The two towers of open_clip, pretrained or from scratch; the image towers can encode parts of images.

Only this module, `text_tower`, `attention`, `tokenizer` and `open_clip_files` use open_clip and its private parts.
"""

import re
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from open_clip.coca_model import CoCa
from open_clip.factory import load_checkpoint
from open_clip.model import CustomTextCLIP
from open_clip.transformer import VisionTransformer
from timm.models import Eva, VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn

from jepa.encoder import gather_tokens, run_block
from modalities.image_text.attention import replace_attention, run_blocks
from modalities.image_text.open_clip_files import TowerSizes, check_divides, tower_config, weights_file
from modalities.image_text.text_tower import TextTower
from modalities.image_text.tokenizer import CaptionTokenizer, caption_tokenizer

Encoding = tuple[Tensor, Tensor]  # pooled [B, E], tokens [B, K or N, width]


class ImageTower(nn.Module, ABC):
    """An image tower of open_clip: images, or some of their patches -> one vector and patch tokens.

    grid: rows and columns of patches; image_size: height and width in pixels; width: of the tokens.
    """

    grid: tuple[int, int]
    image_size: tuple[int, int]
    width: int

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower, self.activation_checkpointing = tower, False

    @abstractmethod
    def forward(self, images: Tensor, keep: Tensor | None = None) -> Encoding:
        """[B, 3, H, W], indices of kept patches [B, K] or None -> pooled [B, E], patch tokens [B, K or N, width].

        Dropped patches are neither keys nor queries, and not pooled; the others keep their positions. `pooled` equals
        open_clip's `encode_image` without normalisation; tokens are taken after the final norm, before the pooling.
        """

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks, in order."""


class ClipImageTower(ImageTower):
    """A tower with open_clip's own `VisionTransformer`: CLIP, CoCa, CLIPA and custom towers."""

    tower: VisionTransformer

    def __init__(self, tower: VisionTransformer) -> None:
        super().__init__(tower)
        self.grid, self.image_size, self.width = tower.grid_size, tower.image_size, tower.transformer.width
        replace_attention(tower.transformer.resblocks)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Encoding:
        checkpointing = self.activation_checkpointing and self.training
        tokens = run_blocks(self.tower.transformer.resblocks, checkpointing, self._embedded(images, keep))
        pooled, _ = self.tower._pool(tokens)
        # CoCa pools by attention, before its `ln_post`; these are the tokens that it attends to.
        norm = self.tower.ln_post if self.tower.attn_pool is None else self.tower.attn_pool.ln_k
        return pooled @ self.tower.proj, norm(tokens[:, 1:])

    def blocks(self) -> list[nn.Module]:
        return list(self.tower.transformer.resblocks)

    def _embedded(self, images: Tensor, keep: Tensor | None) -> Tensor:
        """Class token and kept patches with their positions: [B, 3, H, W] -> [B, 1 + K, width].

        A matrix product of patches equals the tower's strided convolution, without computing dropped patches.
        Positions and the residual stream stay fp32 under autocast; open_clip rounds them to the convolution's type.
        """
        (rows, columns), (height, width) = self.grid, self.tower.patch_size
        images = images[:, :, : rows * height, : columns * width]  # convolutions ignore incomplete patches too
        patches = rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", p=height, q=width)
        first, table = self.tower.positional_embedding[:1], self.tower.positional_embedding[1:]
        if keep is None:
            positions = table
        else:
            patches, positions = gather_tokens(patches, keep), F.embedding(keep, table)
        embedded = F.linear(patches, self.tower.conv1.weight.flatten(1)) + positions
        class_token = (self.tower.class_embedding + first).expand(len(images), 1, -1)
        return self.tower.ln_pre(torch.cat([class_token.to(embedded.dtype), embedded], dim=1))  # type: ignore[no-any-return]


class TimmImageTower(ImageTower):
    """A tower that open_clip takes from timm: SigLIP, EVA, PE."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__(tower)
        patches = self._trunk.patch_embed
        self.grid, self.image_size, self.width = patches.grid_size, patches.img_size, self._trunk.embed_dim

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Encoding:
        trunk, extra = self._trunk, self._trunk.num_prefix_tokens  # class token and registers are always kept
        tokens, angles = self._embedded(images)
        if keep is not None:
            tokens = torch.cat([tokens[:, :extra], gather_tokens(tokens[:, extra:], keep)], dim=1)
            angles = None if angles is None else angles[keep].unsqueeze(1)  # [B, 1, K, C], shared by all heads
        tokens = trunk.norm_pre(tokens)
        for block in trunk.blocks:
            arguments = (tokens,) if angles is None else (tokens, angles)
            tokens = run_block(block, self.activation_checkpointing and self.training, *arguments)
        tokens = trunk.norm(tokens)
        pooled = self.tower.get_submodule("head")(trunk.forward_head(tokens))
        # Towers with mean pooling may apply their norm after it only.
        normed = trunk.fc_norm(tokens) if isinstance(trunk.norm, nn.Identity) else tokens
        return pooled, normed[:, extra:]

    def blocks(self) -> list[nn.Module]:
        return list(self._trunk.blocks)

    def _embedded(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, 3, H, W] -> tokens [B, extra + N, width], rotary angles [N, C] or None."""
        embedded = self._trunk._pos_embed(self._trunk.patch_embed(images))
        return embedded if isinstance(embedded, tuple) else (embedded, None)

    @property
    def _trunk(self) -> Any:
        return self.tower.trunk


class Towers(NamedTuple):
    """Two towers that map into one space of `embed_dim` dimensions, and their tokenizer."""

    image: ImageTower
    text: TextTower
    embed_dim: int
    tokenize: CaptionTokenizer


def build_towers(
    architecture: str | TowerSizes, *, pretrained: str | None = None, image_size: tuple[int, int] | None = None
) -> Towers:
    """Towers of an architecture of open_clip, from a folder (`local-dir:PATH`), or of custom sizes.

    pretrained: None for random weights from torch's global generator; a tag of open_clip, whose weights are downloaded;
    or a file or folder of weights. image_size: height and width in pixels, by default the architecture's; pretrained
    positions are interpolated. On the meta device no weights are loaded.
    Raises ValueError, with one sentence, if the towers cannot be built or loaded.
    """
    config = tower_config(architecture, image_size)
    weights = None if torch.get_default_device().type == "meta" else weights_file(architecture, pretrained)
    model = _model(architecture, config)
    if weights is not None:
        _load(model, weights, architecture)
    if image_size is not None and hasattr(model.visual, "trunk"):
        check_divides(image_size, model.visual.trunk.patch_embed.patch_size[0])
        model.visual.set_input_size(image_size)  # timm's towers are loaded at their own size, as in open_clip
    sizes = architecture if isinstance(architecture, TowerSizes) else None
    tokenize = caption_tokenizer(architecture, config)
    text = TextTower(model.text, tokenize.end, mask_padding=sizes is not None and sizes.mask_padding)
    return Towers(_image_tower(model.visual), text, config["embed_dim"], tokenize)


def _image_tower(visual: nn.Module) -> ImageTower:
    if isinstance(visual, VisionTransformer):
        return ClipImageTower(visual)
    assert isinstance(visual.trunk, TimmVisionTransformer | Eva), "`tower_config` refuses all others"
    return TimmImageTower(visual)


def _model(architecture: str | TowerSizes, config: dict[str, Any]) -> CustomTextCLIP:
    try:
        return (CoCa if "multimodal_cfg" in config else CustomTextCLIP)(**config)
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"open_clip cannot build {architecture}: {_sentence(error)}") from error


def _load(model: CustomTextCLIP, weights: str, architecture: str | TowerSizes) -> None:
    try:
        load_checkpoint(model, weights)
    except Exception as error:  # the libraries raise no common type for a file that does not fit
        raise ValueError(f"the weights in {weights} do not fit {architecture}: {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    words = re.sub(r"\s+", " ", str(error)).strip()
    return (words if len(words) < 300 else words[:297] + "...") or type(error).__name__
