"""Training of attentive probes on the frozen tokens of the last layer (Bardes et al. 2024, sec. 4.2)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa.data import seeded
from jepa.evaluate.probes.linear import accuracy, best_setting, root_mean_square_error
from jepa.evaluate.splits import Examples, Splits
from jepa.probe.missing import without_nan
from jepa.probe.network import EPS, AttentiveProbe as AttentiveProbe, attend, probe_logits as probe_logits
from jepa.probe.saved import SavedProbe
from jepa.schedules import warmed_up

BATCH = 64
_SCORED_AT_ONCE = 256


class Setting(NamedTuple):
    """Hyperparameters of AdamW."""

    learning_rate: float
    weight_decay: float


GRID = tuple(Setting(rate, decay) for rate in (1e-3, 3e-3) for decay in (0.01, 0.4))


@dataclass(frozen=True)
class ProbeTraining:
    """Number of steps, device and precision for training attentive probes; normed: whether tokens are layer-normed.

    grid, averaged: of the encoder's tokens, and of those that a probe reads, as in `SavedProbe`.
    """

    steps: int
    device: torch.device
    bf16: bool
    normed: bool = True
    grid: tuple[int, ...] = ()
    averaged: tuple[int, ...] = ()


@dataclass(frozen=True)
class AttentiveOutcome:
    """Test score, the setting chosen on the validation split, and its probe; a number is output * scale + centre."""

    score: float
    setting: Setting
    probe: AttentiveProbe = field(compare=False)
    centre: float = 0.0
    scale: float = 1.0

    def saved(self, classes: Sequence[str], training: ProbeTraining) -> SavedProbe:
        """The probe as a file holds it."""
        probe = self.probe.cpu()
        return SavedProbe(
            weights={name: value.detach() for name, value in probe.state_dict().items()},
            heads=probe.heads,
            classes=tuple(classes) if len(classes) == probe.classifier.out_features else (),
            centre=self.centre,
            scale=self.scale,
            normed=training.normed and len(probe.blocks) > 0,  # without blocks, the probe norms its tokens itself
            grid=training.grid,
            averaged=training.averaged,
        )


def attentive_probe(examples: Splits[Examples], blocks: int, outputs: int, training: ProbeTraining) -> AttentiveOutcome:
    """Train a probe for every setting of `GRID` -> test score of the setting that is best on validation.

    examples: tokens of V views [n, V, M, D], layer-normed if `training.normed`, perhaps bf16, NaN where a sample lacks
    the token. outputs: number of
    classes, or 1 for a number.

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
    score = scores(examples.test)[chosen]
    return AttentiveOutcome(score, GRID[chosen], probes[chosen], float(centre), float(scale))


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
    tokens, valid = without_nan(tokens)
    valid = None if valid is None else valid.to(training.device)
    tokens = tokens.to(training.device, torch.bfloat16 if training.bf16 else torch.float32)
    if not probes[0].blocks:
        normed = tokens if training.normed else F.layer_norm(tokens, tokens.shape[-1:], eps=EPS)
        return attend(probes, normed, valid)
    with torch.autocast(training.device.type, torch.bfloat16, enabled=training.bf16):
        return probe_logits(probes, tokens.float(), valid).float()


@torch.inference_mode()
def _predict(probes: Sequence[AttentiveProbe], tokens: Tensor, training: ProbeTraining) -> Tensor:
    """Class probabilities, or numbers, averaged over views: [n, V, M, D] -> [P, n, outputs]."""
    parts = []
    for chunk in tokens.split(max(1, _SCORED_AT_ONCE // tokens.shape[1])):
        outputs = _logits(probes, chunk.flatten(0, 1), training)
        outputs = outputs.softmax(dim=-1) if outputs.shape[-1] > 1 else outputs
        parts.append(outputs.unflatten(1, chunk.shape[:2]).mean(dim=2).cpu())
    return torch.cat(parts, dim=1)
