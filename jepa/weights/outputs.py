"""The rows of the predictor's output, one block per kind of target, for a run that starts from other networks."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from jepa.checkpoint import Checkpoint
from jepa.config import build
from jepa.encoder import TokenEncoder
from jepa.modality import Modality
from jepa.model_config import NetworksConfig
from jepa.targets import VIEWS, VISIBLE, TargetKind, build_target
from jepa.training.config import Config
from jepa.training.stages import in_order

_PROJECT = "predictor.project"


def with_outputs(
    source: str, checkpoint: Checkpoint, config: Config[Any, Any], modality: Modality[Any]
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of a source with the rows that a run's kinds of target need, and what to print about it.

    Rows of other kinds are left out. Kinds that the source did not predict get random rows. If the rows of the source
    are not what its config says, its weights are returned unchanged, for a comparison with the run's own.
    """
    found = dict(checkpoint.model)
    theirs = _hidden(kind for stage in checkpoint.config.get("stages", [{}]) for kind in _predicted(stage))
    ours = _hidden(config.target_kinds)
    total = len(found.get(f"{_PROJECT}.bias", ()))
    if theirs == ours or not total or "predictor" in config.start_fresh:
        return found, []
    with torch.device("meta"):
        encoder = modality.encoder(config.model)
    sizes = _sizes(ours, config.model, modality, encoder)
    model = build(type(config.model), [checkpoint.config["model"]])
    # No function is imported that the source alone names: one such function has the rows that are left.
    known = _sizes([kind for kind in theirs if ":" not in kind or kind in ours], model, modality, encoder)
    unknown = [kind for kind in theirs if kind not in known]
    known |= {kind: total - sum(known.values()) for kind in unknown[:1]}
    if len(unknown) > 1 or (sum(known.values()) or 1) != total or min(known.values(), default=1) < 1:
        return found, []
    generator = Generator().manual_seed(config.seed)
    for part in ("weight", "bias"):
        found[f"{_PROJECT}.{part}"] = _rows(
            found[f"{_PROJECT}.{part}"], {k: known[k] for k in theirs}, sizes, generator
        )
    return found, _notes(source, theirs, ours)


def _predicted(stage: Mapping[str, Any]) -> list[TargetKind]:
    predicted = stage.get("predict", "latent")
    return [predicted] if isinstance(predicted, str) else [kind for kind, weight in predicted.items() if weight]


def _hidden(kinds: Iterable[TargetKind]) -> list[TargetKind]:
    """The kinds that have rows, in the order of these."""
    return sorted({*kinds} - {VIEWS, VISIBLE}, key=in_order)


def _sizes(
    kinds: Iterable[TargetKind], model: NetworksConfig, modality: Modality[Any], encoder: TokenEncoder
) -> dict[TargetKind, int]:
    return {kind: build_target(kind, model, modality, encoder).values for kind in kinds}


def _rows(
    values: Tensor, theirs: Mapping[TargetKind, int], ours: Mapping[TargetKind, int], generator: Generator
) -> Tensor:
    """Rows of kinds in both; those of new kinds are random with std .02, and biases 0."""
    found = dict(zip(theirs, values.split([*theirs.values()]), strict=True)) if theirs else {}
    rows = []
    for kind, size in (ours or {VIEWS: 1}).items():  # a predictor has at least one output
        new = torch.zeros(size, *values.shape[1:])
        if values.ndim > 1:
            torch.nn.init.trunc_normal_(new, std=0.02, generator=generator)
        rows.append(found.get(kind, new.to(values.dtype)))
    return torch.cat(rows)


def _notes(source: str, theirs: list[TargetKind], ours: list[TargetKind]) -> list[str]:
    notes = []
    if lost := [kind for kind in theirs if kind not in ours]:
        notes.append(
            f"start_from: the predictor's outputs for {' and '.join(lost)} are left out: nothing predicts them"
        )
    if new := [kind for kind in ours if kind not in theirs]:
        reason = "did not predict them" if theirs else "did not train its predictor"
        notes.append(
            f"start_from: the predictor's outputs for {' and '.join(new)} have random weights: {source} {reason}"
        )
    return notes
