"""Attentive probe: a learnt query looks at the frozen tokens of the last layer (Bardes et al. 2024, sec. 4.2)."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa.data import seeded
from jepa.evaluate.probes.linear import accuracy, best_setting, root_mean_square_error
from jepa.evaluate.splits import Splits
from jepa.positions import Grid
from jepa.schedules import warmed_up
from jepa.transformer import Block, FeedForward, initialise

HEADS, HEAD_WIDTH = 16, 32  # at most so many heads, each at least so wide
EPS = 1e-5  # of the layer norms, as in the probes of V-JEPA and V-JEPA 2
BATCH = 64
_SCORED_AT_ONCE = 256


class Setting(NamedTuple):
    """Of AdamW."""

    learning_rate: float
    weight_decay: float


GRID = tuple(Setting(rate, decay) for rate in (1e-3, 3e-3) for decay in (0.01, 0.4))


@dataclass(frozen=True)
class Sequences:
    """Token sequences of samples, each seen in V views, and what is known about them."""

    tokens: Tensor  # [n, V, M, D], layer-normed, so that this need not be done at every look; may be bf16
    labels: Tensor  # int64 [n] classes, or float [n] numbers

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Attended:
    """Score on the test split, and what the validation split chose."""

    score: float
    setting: Setting


class AttentiveProbe(nn.Module):
    """Self-attention blocks, cross-attention of one learnt query to the tokens, MLP, linear layer.

    blocks: all of them; the last is the cross-attention, so 1 is the probe of V-JEPA and 4 that of V-JEPA 2. As there,
    the query is not normed, and the cross-attention has no output projection.
    """

    def __init__(self, dim: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.heads = max(heads for heads in range(1, HEADS + 1) if heads == 1 or dim % (heads * HEAD_WIDTH) == 0)
        self.blocks = nn.ModuleList(Block(dim, self.heads, 4.0) for _ in range(blocks - 1))
        self.query = nn.Parameter(torch.zeros(dim))
        self.norm1, self.norm2 = nn.LayerNorm(dim, EPS), nn.LayerNorm(dim, EPS)
        self.to_query, self.to_key, self.to_value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.mlp = FeedForward(dim, 4.0)
        self.classifier = nn.Linear(dim, outputs)
        initialise(self, "rescaled")
        nn.init.trunc_normal_(self.query, std=0.02)
        for block in self.blocks.children():
            for norm in (module for module in block.children() if isinstance(module, nn.LayerNorm)):
                norm.eps = EPS

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, M, D] -> [B, outputs]."""
        return answers([self], tokens)[0]

    def blocks_answer(self, tokens: Tensor) -> Tensor:
        """Through the blocks of self-attention first: [B, M, D] -> [B, outputs]."""
        for block in self.blocks:
            tokens = block(tokens)
        return looked([self], F.layer_norm(tokens, tokens.shape[-1:], eps=EPS))[0]

    def looks(self) -> Tensor:
        """What each head looks for, in the space of normed tokens: [H, D].

        A single query q scores token x by q (W x + b); turned to (q W) x, tokens need no projection, which is nearly
        all of the cost. The bias shifts all scores alike, which softmax does not see.
        """
        query = self.to_query(self.query).unflatten(0, (self.heads, -1))  # [H, C]
        key = self.to_key.weight.unflatten(0, (self.heads, -1))  # [H, C, D]
        looks: Tensor = torch.einsum("hc,hcd->hd", query, key) * self.norm1.weight * query.shape[-1] ** -0.5
        return looks

    def answer(self, seen: Tensor) -> Tensor:
        """Mean of the normed tokens that each head looked at [B, H, D] -> [B, outputs]."""
        seen = seen * self.norm1.weight + self.norm1.bias
        value = self.to_value.weight.unflatten(0, (self.heads, -1))  # [H, C, D]
        attended = torch.einsum("bhd,hcd->bhc", seen, value).flatten(1) + self.to_value.bias
        pooled = self.query + attended
        return self.classifier(pooled + self.mlp(self.norm2(pooled)))  # type: ignore[no-any-return]


def answers(probes: Sequence[AttentiveProbe], tokens: Tensor) -> Tensor:
    """What probes of one shape say: tokens [B, M, D] -> [P, B, outputs]."""
    if not probes[0].blocks:
        return looked(probes, F.layer_norm(tokens, tokens.shape[-1:], eps=EPS))
    return torch.stack([probe.blocks_answer(tokens) for probe in probes])


def looked(probes: Sequence[AttentiveProbe], normed: Tensor) -> Tensor:
    """What probes say whose queries look together: normed tokens [B, M, D], perhaps bf16 -> [P, B, outputs]."""
    looks = torch.cat([probe.looks() for probe in probes])  # [P H, D]
    shares = (normed @ looks.T.to(normed.dtype)).float().softmax(dim=1)  # [B, M, P H]
    seen = (shares.transpose(1, 2).to(normed.dtype) @ normed).float().unflatten(1, (len(probes), -1))  # [B, P, H, D]
    return torch.stack([probe.answer(part) for probe, part in zip(probes, seen.unbind(1), strict=True)])


@dataclass(frozen=True)
class Attention:
    """How long, where and how precisely attentive probes are taught."""

    steps: int
    device: torch.device
    precision: Literal["bf16", "fp32"]


def attentive_probe(examples: Splits[Sequences], blocks: int, outputs: int, training: Attention) -> Attended:
    """Teach a probe for every setting of `GRID` -> the test score of the one that validation chooses.

    outputs: the number of classes, or 1 for a number.

    Classes: accuracy of the class probabilities, averaged over the views. Numbers: root mean square error of the
    answers, averaged likewise. Of a training sample the first view teaches. AdamW, warm-up over a twentieth of the
    steps, then half a cosine to 0 (Bardes et al. 2024 use no warm-up). The same for equal tokens: initial weights and
    the order of samples are always the same.
    """
    labels = examples.train.labels
    centre, scale = torch.zeros(()), torch.ones(())
    if outputs == 1:
        centre, scale = labels.mean(), labels.std(correction=0).clamp_min(1e-6)
    probes = _initial(examples.train.tokens.shape[-1], outputs, blocks, training.device)
    _teach(probes, Sequences(examples.train.tokens[:, 0], _scaled(labels, centre, scale)), training)

    def scores(split: Sequences) -> list[float]:
        return [_score(answer, split.labels, centre, scale) for answer in _over_views(probes, split.tokens, training)]

    chosen = best_setting(range(len(GRID)), scores(examples.validation), higher_is_better=outputs > 1)
    return Attended(scores(examples.test)[chosen], GRID[chosen])


def _initial(dim: int, outputs: int, blocks: int, device: torch.device) -> list[AttentiveProbe]:
    """A probe for every setting, all with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = AttentiveProbe(dim, outputs, blocks)
    return [copy.deepcopy(probe).to(device) for _ in GRID]


def _teach(probes: Sequence[AttentiveProbe], examples: Sequences, training: Attention) -> None:
    """Examples: tokens [n, M, D], labels as the probes are to give them."""
    groups = [
        {"params": list(probe.parameters()), "lr": 0.0, "weight_decay": setting.weight_decay}
        for probe, setting in zip(probes, GRID, strict=True)
    ]
    optimizer = torch.optim.AdamW(groups, fused=True)
    for step in range(training.steps):
        share = warmed_up(step, training.steps, 0.05 * training.steps, (0.0, 1.0, 0.0), "cosine")
        for group, setting in zip(optimizer.param_groups, GRID, strict=True):
            group["lr"] = share * setting.learning_rate
        rows = _rows(step, len(examples))
        labels = examples.labels[rows].to(training.device)
        said = _said(probes, examples.tokens[rows], training)  # [P, B, outputs]
        if said.shape[-1] > 1:
            loss = torch.stack([F.cross_entropy(answer, labels) for answer in said]).sum()
        else:
            loss = (said[..., 0] - labels).square().mean(dim=1).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _rows(step: int, count: int) -> Tensor:
    """Samples of a step: epoch after epoch, each an order of its own, its last samples left out if they are few."""
    size = min(BATCH, count)
    epoch, place = divmod(step, count // size)
    return torch.randperm(count, generator=seeded("attentive", epoch))[place * size : (place + 1) * size]


def _said(probes: Sequence[AttentiveProbe], tokens: Tensor, training: Attention) -> Tensor:
    bf16 = training.precision == "bf16"
    tokens = tokens.to(training.device, torch.bfloat16 if bf16 else torch.float32)
    if not probes[0].blocks:
        return looked(probes, tokens)
    with torch.autocast(training.device.type, torch.bfloat16, enabled=bf16):
        return answers(probes, tokens.float()).float()


@torch.inference_mode()
def _over_views(probes: Sequence[AttentiveProbe], tokens: Tensor, training: Attention) -> Tensor:
    """Class probabilities, or numbers, averaged over views: [n, V, M, D] -> [P, n, outputs]."""
    parts = []
    for chunk in tokens.split(max(1, _SCORED_AT_ONCE // tokens.shape[1])):
        said = _said(probes, chunk.flatten(0, 1), training)
        said = said.softmax(dim=-1) if said.shape[-1] > 1 else said
        parts.append(said.unflatten(1, chunk.shape[:2]).mean(dim=2).cpu())
    return torch.cat(parts, dim=1)


def _scaled(labels: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    return (labels - centre) / scale if labels.is_floating_point() else labels


def _score(answer: Tensor, labels: Tensor, centre: Tensor, scale: Tensor) -> float:
    if answer.shape[-1] > 1:
        return accuracy(answer, labels)
    return root_mean_square_error(answer[:, 0] * scale + centre, labels)


def pooling(grid: Grid, limit: int) -> Tensor | None:
    """Means over neighbouring tokens that leave at most `limit`: [M, N]; None where the grid has no more than that.

    The longest axis is halved, the last of equals, until the tokens are few enough.
    """
    sizes = list(grid)
    while math.prod(sizes) > limit and max(sizes) > 1:
        axis = max(range(len(sizes)), key=lambda axis: (sizes[axis], axis))
        sizes[axis] = math.ceil(sizes[axis] / 2)
    if tuple(sizes) == tuple(grid):
        return None
    whole = torch.ones(1, 1)
    for size, length in zip(sizes, grid, strict=True):
        means = F.adaptive_avg_pool1d(torch.eye(length).unsqueeze(0), size)[0].T  # [size, length]
        whole = torch.kron(whole, means)
    return whole
