"""Attentive probe: a learnt query attends to the frozen tokens of the last layer (Bardes et al. 2024, sec. 4.2)."""

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
from jepa.evaluate.splits import Examples, Splits
from jepa.positions import Grid
from jepa.schedules import warmed_up
from jepa.transformer import Block, FeedForward, initialise

HEADS, HEAD_WIDTH = 16, 32  # most heads, least width of a head
EPS = 1e-5  # of the layer norms, as in the probes of V-JEPA and V-JEPA 2
BATCH = 64
_SCORED_AT_ONCE = 256


class Setting(NamedTuple):
    """Hyperparameters of AdamW."""

    learning_rate: float
    weight_decay: float


GRID = tuple(Setting(rate, decay) for rate in (1e-3, 3e-3) for decay in (0.01, 0.4))


@dataclass(frozen=True)
class AttentiveOutcome:
    """Test score, and the setting chosen on the validation split."""

    score: float
    setting: Setting


@dataclass(frozen=True)
class ProbeTraining:
    """Number of steps, device and precision for training attentive probes."""

    steps: int
    device: torch.device
    precision: Literal["bf16", "fp32"]


class AttentiveProbe(nn.Module):
    """Self-attention blocks, cross-attention of one learnt query to the tokens, MLP, linear layer.

    blocks: self-attention blocks and the cross-attention; 1 gives the probe of V-JEPA, 4 that of V-JEPA 2. As there,
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
        for block in self.blocks:
            tokens = block(tokens)
        return attend([self], F.layer_norm(tokens, tokens.shape[-1:], eps=EPS))[0]

    def queries(self) -> Tensor:
        """The query of each head in the space of normed tokens: [H, D].

        A single query q scores a token x by q (W x + b). Computed as (q W) x, this needs no projection of tokens, which
        would be nearly all of the cost. The bias shifts all scores alike and cancels in the softmax.
        """
        query = self.to_query(self.query).unflatten(0, (self.heads, -1))  # [H, C]
        key = self.to_key.weight.unflatten(0, (self.heads, -1))  # [H, C, D]
        queries: Tensor = torch.einsum("hc,hcd->hd", query, key) * self.norm1.weight * query.shape[-1] ** -0.5
        return queries

    def logits(self, attended: Tensor) -> Tensor:
        """Normed tokens, averaged by the attention of each head [B, H, D] -> [B, outputs]."""
        attended = attended * self.norm1.weight + self.norm1.bias
        weight = self.to_value.weight.unflatten(0, (self.heads, -1))  # [H, C, D]
        values = torch.einsum("bhd,hcd->bhc", attended, weight).flatten(1) + self.to_value.bias
        pooled = self.query + values
        return self.classifier(pooled + self.mlp(self.norm2(pooled)))  # type: ignore[no-any-return]


def probe_logits(probes: Sequence[AttentiveProbe], tokens: Tensor) -> Tensor:
    """Outputs of probes of one shape: tokens [B, M, D] -> [P, B, outputs]."""
    if probes[0].blocks:
        return torch.stack([probe(tokens) for probe in probes])
    return attend(probes, F.layer_norm(tokens, tokens.shape[-1:], eps=EPS))


def attend(probes: Sequence[AttentiveProbe], normed: Tensor) -> Tensor:
    """Cross-attention of all probes in one product: normed tokens [B, M, D], perhaps bf16 -> [P, B, outputs]."""
    queries = torch.cat([probe.queries() for probe in probes])  # [P H, D]
    weights = (normed @ queries.T.to(normed.dtype)).float().softmax(dim=1)  # [B, M, P H]
    attended = (weights.transpose(1, 2).to(normed.dtype) @ normed).float()  # [B, P H, D]
    parts = attended.chunk(len(probes), dim=1)  # [B, H, D] each
    return torch.stack([probe.logits(part) for probe, part in zip(probes, parts, strict=True)])


def attentive_probe(examples: Splits[Examples], blocks: int, outputs: int, training: ProbeTraining) -> AttentiveOutcome:
    """Train a probe for every setting of `GRID` -> test score of the setting that is best on validation.

    examples: layer-normed tokens of V views [n, V, M, D], perhaps bf16. outputs: number of classes, or 1 for a number.

    Classes: accuracy of the class probabilities averaged over views. Numbers: root mean square error of the outputs
    averaged over views. Training uses the first view of each sample. AdamW, warm-up over a twentieth of the steps, then
    half a cosine to 0. Deterministic: initial weights and the order of samples are fixed.

    Departs from V-JEPA (Bardes et al. 2024), which has no warm-up.
    """
    labels = examples.train.labels
    centre, scale = torch.zeros(()), torch.ones(())
    if outputs == 1:
        centre, scale = labels.mean(), labels.std(correction=0).clamp_min(1e-6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = AttentiveProbe(examples.train.features.shape[-1], outputs, blocks)
    probes = [copy.deepcopy(probe).to(training.device) for _ in GRID]  # all with the same initial weights
    scaled = (labels - centre) / scale if labels.is_floating_point() else labels
    _train(probes, Examples(examples.train.features[:, 0], scaled), training)

    def scores(split: Examples) -> list[float]:
        predictions = _predict(probes, split.features, training)  # [P, n, outputs]
        if outputs > 1:
            return [accuracy(prediction, split.labels) for prediction in predictions]
        return [root_mean_square_error(prediction[:, 0] * scale + centre, split.labels) for prediction in predictions]

    chosen = best_setting(range(len(GRID)), scores(examples.validation), higher_is_better=outputs > 1)
    return AttentiveOutcome(scores(examples.test)[chosen], GRID[chosen])


def _train(probes: Sequence[AttentiveProbe], examples: Examples, training: ProbeTraining) -> None:
    """Fit all probes to the same batches. Examples: tokens [n, M, D], number labels standardised."""
    groups = [
        {"params": list(probe.parameters()), "lr": 0.0, "weight_decay": setting.weight_decay}
        for probe, setting in zip(probes, GRID, strict=True)
    ]
    optimizer = torch.optim.AdamW(groups, fused=True)
    size = min(BATCH, len(examples))
    for step in range(training.steps):
        share = warmed_up(step, training.steps, 0.05 * training.steps, (0.0, 1.0, 0.0), "cosine")
        for group, setting in zip(optimizer.param_groups, GRID, strict=True):
            group["lr"] = share * setting.learning_rate
        # Each epoch has its own order and drops an incomplete last batch.
        epoch, batch = divmod(step, len(examples) // size)
        order = torch.randperm(len(examples), generator=seeded("attentive", epoch))
        rows = order[batch * size : (batch + 1) * size]
        labels = examples.labels[rows].to(training.device)
        logits = _logits(probes, examples.features[rows], training)  # [P, B, outputs]
        if logits.shape[-1] > 1:
            loss = torch.stack([F.cross_entropy(of_probe, labels) for of_probe in logits]).sum()
        else:
            loss = (logits[..., 0] - labels).square().mean(dim=1).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _logits(probes: Sequence[AttentiveProbe], tokens: Tensor, training: ProbeTraining) -> Tensor:
    bf16 = training.precision == "bf16"
    tokens = tokens.to(training.device, torch.bfloat16 if bf16 else torch.float32)
    if not probes[0].blocks:
        return attend(probes, tokens)
    with torch.autocast(training.device.type, torch.bfloat16, enabled=bf16):
        return probe_logits(probes, tokens.float()).float()


@torch.inference_mode()
def _predict(probes: Sequence[AttentiveProbe], tokens: Tensor, training: ProbeTraining) -> Tensor:
    """Class probabilities, or numbers, averaged over views: [n, V, M, D] -> [P, n, outputs]."""
    parts = []
    for chunk in tokens.split(max(1, _SCORED_AT_ONCE // tokens.shape[1])):
        outputs = _logits(probes, chunk.flatten(0, 1), training)
        outputs = outputs.softmax(dim=-1) if outputs.shape[-1] > 1 else outputs
        parts.append(outputs.unflatten(1, chunk.shape[:2]).mean(dim=2).cpu())
    return torch.cat(parts, dim=1)


def pooling(grid: Grid, limit: int) -> Tensor | None:
    """Matrix [M, N] that averages neighbouring tokens, M at most `limit`; None if the grid is already that small.

    Halves the longest axis (on a tie, the last one) until few enough tokens are left.
    """
    sizes = list(grid)
    while math.prod(sizes) > limit and max(sizes) > 1:
        axis = max(range(len(sizes)), key=lambda axis: (sizes[axis], axis))
        sizes[axis] = math.ceil(sizes[axis] / 2)
    if tuple(sizes) == tuple(grid):
        return None
    matrix = torch.ones(1, 1)
    for size, length in zip(sizes, grid, strict=True):
        means = F.adaptive_avg_pool1d(torch.eye(length).unsqueeze(0), size)[0].T  # [size, length]
        matrix = torch.kron(matrix, means)
    return matrix
