"""The predictor: context tokens and the positions of target tokens -> predicted target representations."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from jepa.encoder import PositionKind, head_angles, position_table, run_block
from jepa.masking import Masks
from jepa.transformer import NORM_EPS, Block, CrossBlock, Initialisation, LayerNorm, in_stream, initialise, rotation


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """A narrow transformer.

    attention: under `self`, mask tokens and context tokens attend to each other (I-JEPA, V-JEPA); under `cross`, mask
    tokens attend to the context only. blocks: under `self`, predict target blocks separately (I-JEPA: the context is
    repeated per block) or jointly. mask_tokens: number of mask tokens; mask set i uses token i mod mask_tokens (V-JEPA:
    one for each of its two sets). It must be 1 if a modality has several streams. share_mask_token: all mask sets use
    the first one (V-JEPA 2, whose other tokens are for clips of other lengths).
    """

    width: PositiveInt = 384
    depth: PositiveInt = 6
    heads: PositiveInt = 12
    attention: Literal["self", "cross"] = "self"
    blocks: Literal["separate", "joint"] = "separate"
    mask_tokens: PositiveInt = 1
    share_mask_token: bool = False

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads of even size")


@dataclass(frozen=True, kw_only=True)
class PredictorTask:
    """Shapes around the predictor: tokens of width `inputs` at `positions`, predictions of width `outputs`.

    levels: the encoder's; an MLP reads several, joined to `levels * inputs`. visible: values that are predicted of
    context tokens, by a projection of their own; 0 for none.
    """

    inputs: int
    outputs: int
    positions: Tensor  # [N, A]
    position_kind: PositionKind
    initialisation: Initialisation
    levels: int = 1
    visible: int = 0


class Predictor(nn.Module):
    """Predict targets from context (Assran et al. 2023, sec. 3: "Prediction").

    A mask token is placed at each target position; its output is the prediction. All targets of a set of masks share
    one mask token.
    """

    table: Tensor
    angles: Tensor

    def __init__(self, config: PredictorConfig, task: PredictorTask) -> None:
        super().__init__()
        self.config, self.position_kind, self.activation_checkpointing = config, task.position_kind, False
        self.embed: nn.Module = nn.Linear(task.inputs, config.width)
        if task.levels > 1:
            joined = nn.Linear(task.levels * task.inputs, task.inputs)
            self.embed = nn.Sequential(joined, nn.GELU(), self.embed)
        self.mask_tokens = nn.ParameterList(torch.zeros(config.width) for _ in range(config.mask_tokens))
        kind = Block if config.attention == "self" else CrossBlock
        self.blocks = nn.ModuleList(kind(config.width, config.heads, 4.0) for _ in range(config.depth))
        self.norm = LayerNorm(config.width, NORM_EPS)
        self.project = nn.Linear(config.width, task.outputs)
        self.project_context = nn.Linear(config.width, task.visible) if task.visible else None
        initialise(self, task.initialisation)
        for mask_token in self.mask_tokens:
            nn.init.trunc_normal_(mask_token, std=0.02)
        if task.position_kind.startswith("sincos"):
            table = position_table(task.position_kind, task.positions, config.width)
            self.register_buffer("table", table, persistent=False)
        else:
            angles = head_angles(task.position_kind, task.positions, config.width // config.heads)
            self.register_buffer("angles", angles, persistent=False)

    def fsdp_units(self) -> Iterable[nn.Module]:
        """The transformer blocks, which FSDP gathers one after the other."""
        return self.blocks.children()

    def forward(self, context: Tensor, masks: Masks, outputs: slice = slice(None)) -> Tensor:
        """Encoded context [B, Kc, inputs] of a set of masks -> predictions [B, M, Kt, outputs], or some of the outputs.

        Predictions of targets that a sample lacks (`masks.valid_target`) are meaningless.
        """
        return self._project(self._hidden(context, masks, keep=0), masks, outputs)

    def with_context(self, context: Tensor, masks: Masks, outputs: slice) -> tuple[Tensor, Tensor]:
        """As `forward` under joint blocks, and predictions of the context tokens too: [B, 1, Kc, visible]."""
        assert self.project_context is not None
        count = context.shape[1]
        hidden = self._hidden(context, masks, keep=count)
        return self._project(hidden[:, count:], masks, outputs), self.project_context(hidden[:, None, :count])

    def _project(self, hidden: Tensor, masks: Masks, outputs: slice) -> Tensor:
        predicted: Tensor = F.linear(hidden, self.project.weight[outputs], self.project.bias[outputs])
        return predicted.view(-1, *masks.target.shape[1:], predicted.shape[-1])

    def _hidden(self, context: Tensor, masks: Masks, keep: int) -> Tensor:
        """Normed tokens of the last `keep` of the context, and of all targets."""
        blocks, size = masks.target.shape[1:]
        context = in_stream(self.embed(context))
        mask_token = self.mask_tokens[0 if self.config.share_mask_token else masks.number % len(self.mask_tokens)]
        queries = mask_token.to(context.dtype).expand(len(context), blocks * size, -1)
        if self.config.attention == "self" and self.config.blocks == "separate" and blocks > 1:
            context, masks = context.repeat_interleave(blocks, dim=0), masks.one_block_each()
            queries = queries.unflatten(1, (blocks, size)).flatten(0, 1)
        return self.norm(self._run(context, queries, masks, keep))  # type: ignore[no-any-return]

    def _run(self, context: Tensor, queries: Tensor, masks: Masks, keep: int) -> Tensor:
        """Context [b, Kc, W] and queries [b, M * Kt, W] of masks of b samples -> [b, keep + M * Kt, W]."""
        target = masks.target.flatten(1)
        turned = context_turned = None
        channels = self.config.width // self.config.heads
        if self.position_kind.startswith("sincos"):
            context = context + self.table[masks.context]
            queries = queries + self.table[target]
        else:
            turned = rotation(self.angles[target], channels)
            context_turned = rotation(self.angles[masks.context], channels)
        checkpointed = self.activation_checkpointing and self.training
        if self.config.attention == "cross":
            valid = masks.valid_context
            for block in self.blocks:
                queries = run_block(block, checkpointed, queries, context, turned, context_turned, valid)
            return queries
        tokens, valid = torch.cat((context, queries), dim=1), None
        if masks.valid_context is not None and masks.valid_target is not None:
            valid = torch.cat((masks.valid_context, masks.valid_target.flatten(1)), dim=1)
        if context_turned is not None and turned is not None:
            turned = torch.cat((context_turned, turned), dim=3)
        for number, block in enumerate(self.blocks, start=1):
            # Without `keep`, nobody reads what the last block would make of the context.
            first = context.shape[1] - keep if number == len(self.blocks) else 0
            tokens = run_block(block, checkpointed, tokens, turned, valid, first)
        return tokens
