"""The encoder: inputs -> tokens, all of them or those of a context."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepa.compat.contract_1 import RenamedEncoder
from jepa.config import ConfigError
from jepa.masking import Masks
from jepa.ops.patches import (
    PatchEmbedding as PatchEmbedding,
    gather_tokens as gather_tokens,
    mean_tokens as mean_tokens,
    patch_embedding as patch_embedding,
)
from jepa.ops.position_tables import (
    PositionKind as PositionKind,
    head_angles as head_angles,
    position_table as position_table,
)
from jepa.ops.sizes import SIZES as SIZES, SizeName as SizeName, VitSize as VitSize
from jepa.transformer import NORM_EPS, Block, Initialisation, LayerNorm, in_stream, initialise, rotation


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Settings that encoder and predictor share.

    positions: `sincos` adds a fixed table, `rotary` rotates queries and keys. Released weights expect the tables of
    I-JEPA and V-JEPA, `sincos_published`, or the rotations of V-JEPA 2 and 2.1, `rotary_vjepa2` and `rotary_vjepa2_1`.
    """

    positions: PositionKind = "sincos"
    initialisation: Initialisation = "xavier"


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(TransformerConfig):
    """A transformer over tokens; `size` is a name or a mapping of width, depth, heads, mlp_ratio.

    levels: numbers of blocks whose outputs, each with a layer norm of its own, are together the context that the
    predictor reads (V-JEPA 2.1: four, the last one included). Empty for the last block alone.
    """

    size: SizeName | VitSize = "vit_small"
    levels: tuple[PositiveInt, ...] = ()

    @property
    def vit(self) -> VitSize:
        """The size as numbers."""
        return self.size if isinstance(self.size, VitSize) else SIZES[self.size]


take = gather_tokens  # the former name, which plug-ins of contract 1 import


class TokenEncoder(RenamedEncoder, nn.Module, ABC):
    """The encoder interface: inputs -> tokens [B, N, D], all of them or those of a context.

    Samples may lack tokens (padding), so that a batch has one shape. Tokens may belong to several streams, see
    `Modality.streams`; each stream is then pooled separately. Where `masks` is None, all tokens are encoded.
    """

    dim: int
    levels: tuple[int, ...] = ()  # see EncoderConfig
    activation_checkpointing: bool = False

    @abstractmethod
    def outputs(self, inputs: Any, masks: Masks | None = None) -> list[Tensor]:
        """The embedded tokens, then the output of every layer, the last one normed: [B, N or Kc, D] each."""

    def select(self, inputs: Any, masks: Masks | None, wanted: Iterable[int]) -> list[Tensor]:
        """Those `outputs` whose indices are `wanted`; override it to keep no others in memory."""
        outputs = self.outputs(inputs, masks)
        return [outputs[index] for index in wanted]

    @abstractmethod
    def pool(self, tokens: Tensor, masks: Masks | None = None) -> dict[str, Tensor]:
        """One vector per stream from encoded tokens [B, K, D], averaging valid tokens: [B, D] each, by stream name.

        masks: the masks with which the tokens were encoded.
        """

    @abstractmethod
    def fsdp_units(self) -> Iterable[nn.Module]:
        """The submodules that FSDP gathers one after the other."""

    def forward(self, inputs: Any, masks: Masks | None = None) -> Tensor:
        """Encode all tokens, or those of `masks.context` -> [B, N or Kc, D], normed."""
        return self.select(inputs, masks, [-1])[0]

    def layers(self, inputs: Any, masks: Masks | None = None) -> list[Tensor]:
        """Output of every block, the last one normed as in `forward`: depth times [B, N or Kc, D]."""
        return self.outputs(inputs, masks)[1:]

    def last_layers(self, inputs: Any, masks: Masks | None, count: int) -> list[Tensor]:
        """The last `count` of the `layers`, or all if there are fewer; override it to keep no others in memory."""
        return self.layers(inputs, masks)[-count:]

    def context(self, inputs: Any, masks: Masks) -> Tensor:
        """The encoded context as the predictor reads it: [B, Kc, D], or all `levels` joined: [B, Kc, levels * D]."""
        return torch.cat(self.select(inputs, masks, self.levels), dim=-1) if self.levels else self(inputs, masks)

    def contexts(self, inputs: Any, sets: Sequence[Masks]) -> list[Tensor]:
        """Encoded contexts of several sets of masks; override it to share work between the sets."""
        return [self(inputs, masks) for masks in sets]

    def valid(self, inputs: Any) -> Tensor | None:
        """Which tokens exist and are not padding: bool [B, N]; None if every sample has all tokens."""
        return None

    def load_pretrained(self, config: Any) -> None:
        """Load the pretrained weights that the `model` section names, if any; raises ValueError."""

    def set_positions(self, positions: Tensor) -> None:
        """Set the coordinates [N, A] of the tokens, e.g. of another resolution; raises ConfigError if impossible."""
        raise ConfigError("this encoder only works on the token grid that it was trained on")

    def position_table(self, positions: Tensor) -> Tensor:
        """What `encode_local` needs of tokens at coordinates [N, A]: [N, ...]; raises ConfigError if impossible."""
        raise ConfigError("data.local_views: this encoder only works on one token grid")

    def encode_local(self, inputs: Any, table: Tensor) -> Tensor:
        """Encode all tokens of inputs on another grid, from its `position_table` -> [B, N, D], normed."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device


class Encoder(TokenEncoder):
    """A vision transformer without a class token, which computes only the tokens of the context.

    embedding: module (inputs, keep [B, K] or None) -> [B, K, D]; it may have a method `valid`, inputs -> bool [B, N].
    positions: coordinates of all tokens [N, A].
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
        self.norm, self.levels = LayerNorm(vit.width, NORM_EPS), config.levels
        self.level_norms = nn.ModuleList(LayerNorm(vit.width, NORM_EPS) for _ in self.levels[:-1])
        initialise(self, config.initialisation)
        self.set_positions(positions)

    def set_positions(self, positions: Tensor) -> None:
        """Set the coordinates [N, A] of the tokens; fractional ones lie between those of the training grid."""
        name = "table" if self.position_kind.startswith("sincos") else "angles"
        table = self.position_table(positions).to(self.norm.weight.device)
        self.register_buffer(name, table, persistent=False)

    def position_table(self, positions: Tensor) -> Tensor:
        """The table that is added to tokens at these coordinates, or the angles of their rotation."""
        if self.position_kind.startswith("sincos"):
            return position_table(self.position_kind, positions, self.dim)
        return head_angles(self.position_kind, positions, self.dim // self.heads)

    def encode_local(self, inputs: Any, table: Tensor) -> Tensor:
        """Encode all tokens of inputs on another grid, from its `position_table` -> [B, N, D], normed."""
        return self._run(inputs, None, [-1], table)[0]

    def outputs(self, inputs: Any, masks: Masks | None = None) -> list[Tensor]:
        """The embedded inputs without positions, then the `layers`: depth + 1 times [B, N or Kc, D]."""
        return self._run(inputs, masks, range(len(self.blocks) + 1))

    def select(self, inputs: Any, masks: Masks | None, wanted: Iterable[int]) -> list[Tensor]:
        """The `outputs` at some indices; a layer that is not wanted is freed once the next one is computed."""
        if type(self).outputs is not Encoder.outputs:  # overridden
            return super().select(inputs, masks, wanted)
        return self._run(inputs, masks, wanted)

    def last_layers(self, inputs: Any, masks: Masks | None, count: int) -> list[Tensor]:
        """The last `count` of the `layers`, or all if there are fewer."""
        if type(self).layers is not TokenEncoder.layers:  # overridden
            return super().last_layers(inputs, masks, count)
        return self.select(inputs, masks, range(-min(count, len(self.blocks)), 0))

    def _run(
        self, inputs: Any, masks: Masks | None, wanted: Iterable[int], table: Tensor | None = None
    ) -> list[Tensor]:
        valid, keep = self.valid(inputs), None if masks is None else masks.context
        if valid is not None and keep is not None:
            valid = valid.gather(1, keep)
        embedded = tokens = self.embedding(inputs, keep)
        tokens = in_stream(tokens)
        added = self.position_kind.startswith("sincos")
        if table is None:
            table = self.table if added else self.angles
        if added:
            turned = None
            tokens = tokens + (table if keep is None else table[keep])
        else:
            turned = rotation(table.unsqueeze(0) if keep is None else table[keep], self.dim // self.heads)
        numbers = [index % (len(self.blocks) + 1) for index in wanted]
        outputs = {0: embedded} if 0 in numbers else {}
        for number, block in enumerate(self.blocks, start=1):
            tokens = run_block(block, self.activation_checkpointing and self.training, tokens, turned, valid)
            if number in numbers:
                inner = number in self.levels[:-1]
                outputs[number] = self.level_norms[self.levels.index(number)](tokens) if inner else tokens
        if len(self.blocks) in numbers:
            outputs[len(self.blocks)] = self.norm(tokens)
        return [outputs[number] for number in numbers]

    def valid(self, inputs: Any) -> Tensor | None:
        """Which tokens exist, as reported by the embedding; None if it reports nothing."""
        for name in ("valid", "present"):  # the second one is the former name
            if callable(report := getattr(self.embedding, name, None)):
                return cast(Tensor, report(inputs))
        return None

    def pool(self, tokens: Tensor, masks: Masks | None = None) -> dict[str, Tensor]:
        """The mean of the valid tokens."""
        return {"tokens": mean_tokens(tokens, None if masks is None else masks.valid_context)}

    def fsdp_units(self) -> Iterable[nn.Module]:
        """The transformer blocks."""
        return self.blocks.children()


def run_block(block: Callable[..., Tensor], checkpointed: bool, *arguments: Tensor | int | None) -> Tensor:
    """Call a block; if `checkpointed`, recompute its activations in the backward pass instead of storing them."""
    if checkpointed and torch.is_grad_enabled():
        return checkpoint(block, *arguments, use_reentrant=False)
    return block(*arguments)
