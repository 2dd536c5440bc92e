"""The encoder: inputs -> tokens, all of them or only those kept."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepa.config import ConfigError
from jepa.masking import Masks
from jepa.positions import rotary_angles, sincos_table, vjepa2_angles
from jepa.transformer import NORM_EPS, Block, Initialisation, initialise


@dataclass(frozen=True, kw_only=True)
class VitSize:
    """A vision transformer in numbers."""

    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    mlp_ratio: PositiveFloat = 4.0

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(f"a width of {self.width} does not split into {self.heads} heads of an even size")


SizeName = Literal[
    "vit_nano", "vit_tiny", "vit_small", "vit_base", "vit_large", "vit_huge", "vit_giant", "vit_giant_22_heads"
]
SIZES: dict[SizeName, VitSize] = {  # widths, depths and heads of I-JEPA (Assran et al. 2023); nano is ours, for CPUs
    "vit_nano": VitSize(width=128, depth=4, heads=4),
    "vit_tiny": VitSize(width=192, depth=12, heads=3),
    "vit_small": VitSize(width=384, depth=12, heads=6),
    "vit_base": VitSize(width=768, depth=12, heads=12),
    "vit_large": VitSize(width=1024, depth=24, heads=16),
    "vit_huge": VitSize(width=1280, depth=32, heads=16),
    "vit_giant": VitSize(width=1408, depth=40, heads=16, mlp_ratio=48 / 11),
    "vit_giant_22_heads": VitSize(width=1408, depth=40, heads=22, mlp_ratio=48 / 11),  # V-JEPA 2's g
}
PositionKind = Literal["sincos", "rotary", "rotary_vjepa2"]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """What encoder and predictor share.

    positions: a fixed table that is added (`sincos`), angles that queries and keys turn by (`rotary`), or these as the
    released weights of V-JEPA 2 expect them (`rotary_vjepa2`).
    """

    positions: PositionKind = "sincos"
    initialisation: Initialisation = "xavier"


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(TransformerConfig):
    """A transformer over tokens; `size` is a name or a mapping of width, depth, heads, mlp_ratio."""

    size: SizeName | VitSize = "vit_small"

    @property
    def vit(self) -> VitSize:
        """The size in numbers."""
        return self.size if isinstance(self.size, VitSize) else SIZES[self.size]


class PatchEmbedding(nn.Module):
    """Cut inputs into patches and project each: ViT's strided convolution, written so that tokens can be dropped first.

    pattern: an einops pattern from input axes to `batch tokens values`, e.g. "b c (h p) (w q) -> b (h w) (p q c)";
    sizes: the lengths of those of its axes that the input does not tell, here p and q.
    """

    def __init__(self, pattern: str, values: int, dim: int, sizes: dict[str, int]) -> None:
        super().__init__()
        self.pattern, self.sizes, self.values = pattern, sizes, values
        self.project = nn.Linear(values, dim)

    def patches(self, inputs: Tensor) -> Tensor:
        """Raw values of every patch: inputs -> [B, N, values]."""
        return rearrange(inputs, self.pattern, **self.sizes)

    def forward(self, inputs: Tensor, keep: Tensor | None = None) -> Tensor:
        """Inputs, token indices [B, K] or None for all -> [B, K, D]."""
        patches = self.patches(inputs)
        return self.project(patches if keep is None else take(patches, keep))  # type: ignore[no-any-return]


def patch_embedding(pattern: str, values: int, dim: int, **sizes: int) -> PatchEmbedding:
    """`PatchEmbedding` with the sizes of the pattern's axes as keywords."""
    return PatchEmbedding(pattern, values, dim, sizes)


def take(tokens: Tensor, indices: Tensor) -> Tensor:
    """Pick tokens by index, per sample: [B, N, D], [B, ...] -> [B, ..., D]."""
    flat = indices.flatten(1)
    picked = tokens.gather(1, flat.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
    unflat: Tensor = picked.unflatten(1, indices.shape[1:])
    return unflat


class TokenEncoder(nn.Module, ABC):
    """What a JEPA asks of an encoder: inputs -> tokens [B, N, D], all of them or only those kept.

    Tokens may be absent from a sample, which keeps the shape of a batch: padding. Tokens may belong to several streams,
    see `Modality.streams`, each of which is then pooled by itself.
    """

    dim: int
    activation_checkpointing: bool = False

    @abstractmethod
    def outputs(self, inputs: Any, keep: Tensor | None = None, parts: Sequence[int] = ()) -> list[Tensor]:
        """Layers of tokens, the last one as it is used: [B, N, D] each, or those of indices keep [B, K].

        parts: as in `Masks`, how many of those kept are of each stream.
        """

    @abstractmethod
    def pool(self, tokens: Tensor, parts: Sequence[int] = (), present: Tensor | None = None) -> dict[str, Tensor]:
        """One vector for every stream that is among encoded tokens [B, K, D]: [B, D] each, by the stream's name.

        present: which of these tokens there are, [B, K].
        """

    @abstractmethod
    def units(self) -> Iterable[nn.Module]:
        """The parts that run one after the other; sharded weights are gathered for one of them at a time."""

    def forward(self, inputs: Any, keep: Tensor | None = None, parts: Sequence[int] = ()) -> Tensor:
        """Encode inputs: all tokens, or those of indices keep [B, K] -> [B, N or K, D], normed."""
        return self.outputs(inputs, keep, parts)[-1]

    def layers(self, inputs: Any, keep: Tensor | None = None, parts: Sequence[int] = ()) -> list[Tensor]:
        """Output of every block, the last one normed as `forward` gives it: depth times [B, N or K, D]."""
        return self.outputs(inputs, keep, parts)[1:]

    def contexts(self, inputs: Any, masks: Sequence[Masks]) -> list[Tensor]:
        """The encoded contexts of several sets of masks; a chance to compute once what they share."""
        return [self(inputs, one.context, one.parts) for one in masks]

    def present(self, inputs: Any) -> Tensor | None:
        """Which tokens the samples have: bool [B, N]; None where every sample has all of them."""
        return None

    def start(self, config: Any) -> None:
        """Take the weights that training starts from, where the `model` section names some; raises ValueError."""

    def place(self, positions: Tensor) -> None:
        """Expect tokens at these coordinates [N, A] from now on; raises ConfigError where that cannot be."""
        raise ConfigError("this encoder works on the token grid of its training alone")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


class Encoder(TokenEncoder):
    """A vision transformer without a class token; what it is not given it does not compute.

    embedding: module (inputs, keep) -> [B, K, D], which may have a method `present`, inputs -> bool [B, N]; positions:
    coordinates of all tokens [N, A].
    """

    table: Tensor
    angles: Tensor

    def __init__(self, embedding: nn.Module, positions: Tensor, config: EncoderConfig) -> None:
        super().__init__()
        vit = config.vit
        self.dim, self.heads = vit.width, vit.heads
        self.position_kind, self.activation_checkpointing = config.positions, False
        self.embedding = embedding
        self.blocks = nn.ModuleList(Block(vit.width, vit.heads, vit.mlp_ratio) for _ in range(vit.depth))
        self.norm = nn.LayerNorm(vit.width, NORM_EPS)
        initialise(self, config.initialisation)
        self.place(positions)

    def place(self, positions: Tensor) -> None:
        """Expect tokens at these coordinates [N, A] from now on; fractions lie between those of the training grid."""
        device = self.norm.weight.device
        if self.position_kind == "sincos":
            self.register_buffer("table", sincos_table(positions, self.dim).to(device), persistent=False)
        else:
            angles = head_angles(self.position_kind, positions, self.dim // self.heads)
            self.register_buffer("angles", angles.to(device), persistent=False)

    def outputs(self, inputs: Any, keep: Tensor | None = None, parts: Sequence[int] = ()) -> list[Tensor]:
        """The embedded inputs without positions, then what `layers` gives: depth + 1 times [B, N or K, D]."""
        present = self.present(inputs)
        if present is not None and keep is not None:
            present = present.gather(1, keep)
        embedded = tokens = self.embedding(inputs, keep)
        angles = None
        if self.position_kind == "sincos":
            tokens = tokens + (self.table if keep is None else self.table[keep]).to(tokens.dtype)
        else:
            angles = self.angles.unsqueeze(0) if keep is None else self.angles[keep]
        outputs = [embedded]
        for block in self.blocks:
            tokens = run_block(block, self.activation_checkpointing and self.training, tokens, angles, present)
            outputs.append(tokens)
        outputs[-1] = self.norm(tokens)
        return outputs

    def present(self, inputs: Any) -> Tensor | None:
        """Which tokens the samples have, as the embedding tells; None where it does not."""
        tell = getattr(self.embedding, "present", None)
        return None if tell is None else tell(inputs)

    def pool(self, tokens: Tensor, parts: Sequence[int] = (), present: Tensor | None = None) -> dict[str, Tensor]:
        """The mean over the tokens that there are."""
        return {"tokens": mean_over(tokens, present)}

    def units(self) -> Iterable[nn.Module]:
        """Its blocks."""
        return self.blocks.children()


def mean_over(tokens: Tensor, present: Tensor | None) -> Tensor:
    """Mean of the tokens that there are, of all where none is: [B, N, D], bool [B, N] or None -> [B, D]."""
    if present is None:
        return tokens.mean(dim=1)
    weights = (present | ~present.any(dim=1, keepdim=True)).to(tokens.dtype).unsqueeze(-1)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1)


def head_angles(kind: PositionKind, positions: Tensor, head_dim: int) -> Tensor:
    """What turns queries and keys at coordinates [N, A] -> [N, head_dim / 2 or head_dim]."""
    return (vjepa2_angles if kind == "rotary_vjepa2" else rotary_angles)(positions, head_dim)


def run_block(block: Callable[..., Tensor], checkpointed: bool, *arguments: Tensor | None) -> Tensor:
    """Call a block; `checkpointed` forgets its activations and computes them again in the backward pass."""
    if checkpointed and torch.is_grad_enabled():
        return checkpoint(block, *arguments, use_reentrant=False)
    return block(*arguments)
