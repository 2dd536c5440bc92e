"""The two towers of open_clip, pretrained or from scratch, extended to encode parts of images and captions.

Only this module and `open_clip_files` use open_clip and its private parts.
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
from open_clip.transformer import ResidualAttentionBlock, TextTransformer, VisionTransformer
from timm.models import Eva
from timm.models import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn

from jepa.encoder import gather_tokens, run_block
from jepa.transformer import attend
from modalities.image_text.open_clip_files import (
    CaptionTokenizer,
    TowerSizes,
    caption_tokenizer,
    check_divides,
    tower_config,
    weights_file,
)

Encoded = tuple[Tensor, Tensor]  # pooled [B, E], tokens [B, K or N, width]


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
    def forward(self, images: Tensor, keep: Tensor | None = None) -> Encoded:
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
        _replace_attention(tower.transformer.resblocks)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Encoded:
        """See `ImageTower`."""
        checkpointing = self.activation_checkpointing and self.training
        tokens = _run_blocks(self.tower.transformer.resblocks, checkpointing, self._embedded(images, keep))
        pooled, _ = self.tower._pool(tokens)
        # CoCa pools by attention, before its `ln_post`; these are the tokens that it attends to.
        norm = self.tower.ln_post if self.tower.attn_pool is None else self.tower.attn_pool.ln_k
        return pooled @ self.tower.proj, norm(tokens[:, 1:])

    def blocks(self) -> list[nn.Module]:
        """See `ImageTower`."""
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

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Encoded:
        """See `ImageTower`."""
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
        """See `ImageTower`."""
        return list(self._trunk.blocks)

    def _embedded(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, 3, H, W] -> tokens [B, extra + N, width], rotary angles [N, C] or None."""
        embedded = self._trunk._pos_embed(self._trunk.patch_embed(images))
        return embedded if isinstance(embedded, tuple) else (embedded, None)

    @property
    def _trunk(self) -> Any:
        return self.tower.trunk


class TextTower(nn.Module):
    """A text tower of open_clip: captions, or some of their tokens -> one vector and tokens.

    length: tokens per caption, with padding; width: of the tokens; end: id of the end token, None if only padding
    marks the end; mask_padding: do not attend to padding, for towers that are trained from scratch and not causal.
    Pretrained towers attend to it if they do so in open_clip.
    """

    tower: TextTransformer

    def __init__(self, tower: TextTransformer, end: int | None, mask_padding: bool) -> None:
        super().__init__()
        self.tower, self.end, self.activation_checkpointing = tower, end, False
        self.length, self.width = tower.context_length, tower.width
        self.mask_padding = mask_padding and tower.attn_mask is None
        _replace_attention(tower.transformer.resblocks)

    def valid(self, ids: Tensor) -> Tensor:
        """Which tokens are not padding; start and end tokens count: [B, L] -> bool [B, L]."""
        if self.end is None:
            return ids.ne(self.tower.pad_id)
        ends = ids.eq(self.end).long()
        return (ends.cumsum(dim=1) - ends).eq(0)

    def forward(self, ids: Tensor, keep: Tensor | None = None) -> Encoded:
        """[B, L], ascending indices of kept tokens [B, K] or None -> pooled [B, E], tokens [B, K or L, width].

        Dropped tokens are neither keys nor queries; the others keep their positions. `pooled` equals open_clip's
        `encode_text` without normalisation; if the token that it is taken from is dropped, the last kept token before
        it is used. Tokens are taken after the final norm.
        """
        indices = torch.arange(ids.shape[1], device=ids.device).expand_as(ids) if keep is None else keep
        tokens = self.tower.token_embedding(ids.gather(1, indices))
        indices, tokens = self._with_class_token(ids, indices, tokens)
        tokens = tokens + F.embedding(indices, self.tower.positional_embedding)
        mask = self._mask(ids, indices, tokens)
        checkpointing = self.activation_checkpointing and self.training
        tokens = self.tower.ln_final(_run_blocks(self.tower.transformer.resblocks, checkpointing, tokens, mask))
        pooled_at = ((indices <= self._pooled_index(ids)).sum(dim=1) - 1).clamp(min=0)
        pooled = self._projected(tokens[torch.arange(len(ids), device=ids.device), pooled_at])
        return pooled, tokens if self.tower.cls_emb is None else tokens[:, :-1]

    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks, in order."""
        return list(self.tower.transformer.resblocks)

    def _with_class_token(self, ids: Tensor, indices: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Append CoCa's class token, which follows the padding and is always kept."""
        if self.tower.cls_emb is None:
            return indices, tokens
        last = indices.new_full((len(ids), 1), ids.shape[1])
        return torch.cat([indices, last], dim=1), torch.cat([tokens, self.tower.cls_emb.expand(len(ids), 1, -1)], dim=1)

    def _mask(self, ids: Tensor, indices: Tensor, tokens: Tensor) -> Tensor | None:
        """Additive attention mask [B or 1, 1, K, K], -inf where a query must not attend; None if it is zero."""
        count = indices.shape[1]
        allowed = torch.ones(1, 1, count, count, dtype=torch.bool, device=ids.device)
        if self.tower.attn_mask is not None:
            allowed = allowed.tril()  # kept tokens are in ascending order
        if (keys := self._visible(ids)) is not None:
            allowed = allowed & keys.gather(1, indices)[:, None, None]  # [B, 1, K, K]
            isolated = ~allowed.any(dim=-1, keepdim=True)  # no key at all, impossible for softmax: it attends to itself
            allowed = allowed | isolated & torch.eye(count, dtype=torch.bool, device=ids.device)
        elif self.tower.attn_mask is None:
            return None
        return torch.zeros_like(allowed, dtype=tokens.dtype).masked_fill(~allowed, float("-inf"))

    def _visible(self, ids: Tensor) -> Tensor | None:
        """Which tokens may be keys, apart from causality: bool [B, L, + 1 with a class token], or None for all."""
        if self.tower.cls_emb is not None:
            # Shifted by one, as CoCa was trained; open_clip calls it the legacy mask.
            return F.pad(ids != self.tower.pad_id, (1, 0), value=True)
        return self.valid(ids) if self.mask_padding else None

    def _pooled_index(self, ids: Tensor) -> Tensor:
        """Index in the caption of the token that is pooled: [B, L] -> [B, 1]."""
        kind = "class" if self.tower.cls_emb is not None else self.tower.pool_type
        if kind == "argmax":
            return ids.argmax(dim=1, keepdim=True)
        if kind == "eos":
            return ids.eq(self.tower.eos_id).int().argmax(dim=1, keepdim=True)
        if kind == "last" and self.mask_padding:
            return self.valid(ids).sum(dim=1, keepdim=True) - 1
        return ids.new_full((len(ids), 1), {"first": 0, "last": ids.shape[1] - 1, "class": ids.shape[1]}[kind])

    def _projected(self, pooled: Tensor) -> Tensor:
        projection = self.tower.text_projection
        if isinstance(projection, nn.Linear):
            return projection(pooled)  # type: ignore[no-any-return]
        return pooled if projection is None else torch.matmul(pooled, projection)


class FastAttention(nn.Module):
    """Self-attention of `nn.MultiheadAttention`, with the same parameters under the same names.

    torch's module always uses the fused kernel, which is slow in bf16 on CPUs (see `jepa.transformer.attend`), and
    needs a copy of the mask per head.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(
        self, tokens: Tensor, _key: Tensor, _value: Tensor, need_weights: bool, attn_mask: Tensor | None
    ) -> tuple[Tensor, None]:
        """[B, K, D], additive mask [B or 1, 1, K, K] -> [B, K, D]; keys and values are the tokens."""
        projected = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, H, K, C]
        attended = attend(query, key, value) if attn_mask is None else _attend(query, key, value, attn_mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """`attend` with an additive mask."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + mask
        attended: Tensor = scores.softmax(dim=-1).to(value.dtype) @ value
        return attended
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask.to(query.dtype))


def _run_blocks(blocks: nn.ModuleList, checkpointing: bool, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Run open_clip's blocks: [B, K, D] -> [B, K, D]; `checkpointing`: see `run_block`."""
    for block in blocks:
        arguments = (tokens, None, None, mask) if isinstance(block, ResidualAttentionBlock) else (tokens, mask)
        tokens = run_block(block, checkpointing, *arguments)
    return tokens


def _replace_attention(blocks: nn.ModuleList) -> None:
    for block in blocks:
        if isinstance(block, ResidualAttentionBlock):
            block.attn = FastAttention(block.attn)


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
