"""Runs for `jepa convert`, whose every weight matters, and comparisons of what it writes."""

from pathlib import Path
from typing import Any

import torch
from tiny import randomise

from jepa.checkpoint import Checkpoint, latest
from jepa.config import plain
from jepa.launch import resolve
from jepa.model import JEPA

SHAPE = [
    *("data.image_size=16", "data.patch_size=8", "compute.workers=0"),
    *("model.size={width: 24, depth: 2, heads: 2}", "model.predictor={width: 16, depth: 2, heads: 2}"),
]
IMAGE = ["data.masking={kind: random}"]
VIDEO = ["data.frames=4", "data.masking=[{kind: random}, {kind: random}]"]


def saved(modality: str, run_dir: Path, *settings: str) -> Path:
    """A run directory with a checkpoint of random networks whose every weight matters."""
    config, built = resolve(modality, {}, [*SHAPE, f"run_dir={run_dir}", *settings])
    model = JEPA(config.model, built, config.target_kinds)
    for network in (model, model.target_encoder):
        randomise(network)
    with torch.no_grad():
        for parameter in model.target_encoder.parameters():
            parameter.mul_(0.9)
    Checkpoint(3, 1.5, plain(config), model.state_dict(), {}).save(latest(run_dir))
    return run_dir


def assert_equal_features(theirs: Any, ours: torch.Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(theirs), ours, rtol=1e-5, atol=1e-5)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, value in found.items() if not torch.equal(value, expected[name])] == []
