"""The predictor: context tokens and the positions of hidden ones -> guesses of the hidden representations."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from jepa.encoder import PositionKind, head_angles, run_block
from jepa.masking import Masks
from jepa.positions import sincos_table
from jepa.transformer import NORM_EPS, Block, CrossBlock, Initialisation, initialise


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """A narrow transformer.

    attention: `self` lets mask tokens and context tokens attend to one another (I-JEPA, V-JEPA); `cross` lets mask
    tokens look at the context only, which is then processed once however many blocks there are. blocks: under `self`,
    predict target blocks separately (I-JEPA: the context is repeated per block) or jointly. mask_tokens: how many there
    are, which sets of masks take in turn (V-JEPA: one for each of its two sets); 1 where there are several streams.
    """

    width: PositiveInt = 384
    depth: PositiveInt = 6
    heads: PositiveInt = 12
    attention: Literal["self", "cross"] = "self"
    blocks: Literal["separate", "joint"] = "separate"
    mask_tokens: PositiveInt = 1

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(f"a width of {self.width} does not split into {self.heads} heads of an even size")


@dataclass(frozen=True, kw_only=True)
class PredictorTask:
    """What the predictor stands between: tokens of width `inputs` at `positions`, predictions of width `outputs`."""

    inputs: int
    outputs: int
    positions: Tensor  # [N, A]
    position_kind: PositionKind
    initialisation: Initialisation


class Predictor(nn.Module):
    """Predict targets from context (Assran et al. 2023, sec. 3: "Prediction").

    A mask token, the same for all of a set of masks, is placed at each target position; what comes out of it is the
    prediction.
    """

    table: Tensor
    angles: Tensor

    def __init__(self, config: PredictorConfig, task: PredictorTask) -> None:
        super().__init__()
        self.config, self.position_kind, self.activation_checkpointing = config, task.position_kind, False
        self.embed = nn.Linear(task.inputs, config.width)
        self.mask_tokens = nn.ParameterList(torch.zeros(config.width) for _ in range(config.mask_tokens))
        kind = Block if config.attention == "self" else CrossBlock
        self.blocks = nn.ModuleList(kind(config.width, config.heads, 4.0) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, NORM_EPS)
        self.project = nn.Linear(config.width, task.outputs)
        initialise(self, task.initialisation)
        for mask_token in self.mask_tokens:
            nn.init.trunc_normal_(mask_token, std=0.02)
        if task.position_kind == "sincos":
            self.register_buffer("table", sincos_table(task.positions, config.width), persistent=False)
        else:
            angles = head_angles(task.position_kind, task.positions, config.width // config.heads)
            self.register_buffer("angles", angles, persistent=False)

    def units(self) -> Iterable[nn.Module]:
        """The parts that run one after the other; sharded weights are gathered for one of them at a time."""
        return self.blocks.children()

    def forward(self, context: Tensor, masks: Masks, number: int = 0, present: Tensor | None = None) -> Tensor:
        """Encoded context [B, Kc, inputs] of the set of masks with this number -> predictions [B, M, Kt, outputs].

        present: which tokens the samples have, bool [B, N]; what is predicted of others means nothing.
        """
        blocks, size = masks.target.shape[1:]
        context = self.embed(context)
        mask_token = self.mask_tokens[number % len(self.mask_tokens)]
        queries = mask_token.to(context.dtype).expand(len(context), blocks * size, -1)
        where = masks.target.flatten(1)  # [B, M * Kt]
        if self.config.attention == "self" and self.config.blocks == "separate" and blocks > 1:
            predicted = self._run(  # every block becomes a sample of its own: [B * M, ...]
                context.repeat_interleave(blocks, dim=0),
                queries.unflatten(1, (blocks, size)).flatten(0, 1),
                masks.context.repeat_interleave(blocks, dim=0),
                masks.target.flatten(0, 1),
                None if present is None else present.repeat_interleave(blocks, dim=0),
            )
        else:
            predicted = self._run(context, queries, masks.context, where, present)
        return self.project(self.norm(predicted)).view(len(context), blocks, size, -1)  # type: ignore[no-any-return]

    def _run(self, context: Tensor, queries: Tensor, seen: Tensor, hidden: Tensor, present: Tensor | None) -> Tensor:
        """Context [b, Kc, W] at tokens seen [b, Kc], queries [b, K, W] at tokens hidden [b, K] -> [b, K, W]."""
        context_angles = query_angles = None
        if self.position_kind == "sincos":
            context = context + self.table[seen].to(context.dtype)
            queries = queries + self.table[hidden].to(queries.dtype)
        else:
            context_angles, query_angles = self.angles[seen], self.angles[hidden]
        checkpointed = self.activation_checkpointing and self.training
        if self.config.attention == "cross":
            there = None if present is None else present.gather(1, seen)
            for block in self.blocks:
                queries = run_block(block, checkpointed, queries, context, query_angles, context_angles, there)
            return queries
        there = None if present is None else present.gather(1, torch.cat((seen, hidden), dim=1))
        tokens = torch.cat((context, queries), dim=1)
        angles = None
        if context_angles is not None and query_angles is not None:
            angles = torch.cat((context_angles, query_angles), dim=1)
        for block in self.blocks:
            tokens = run_block(block, checkpointed, tokens, angles, there)
        return tokens[:, context.shape[1] :]
