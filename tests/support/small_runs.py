"""Small runs: the config and modality of one on noise, and the checkpoint of one on images."""

from pathlib import Path
from typing import Any

import torch
from tiny import Noise

from jepa.checkpoint import Checkpoint, latest
from jepa.config import build, parse_override, plain
from jepa.launch import resolve
from jepa.model import JEPA
from jepa.training.config import Config

SMALL = [
    *("modality=noise", "run_dir=unused", "steps=2", "data.grid=[8,12]", "optim.batch_size=32", "compute.device=cpu"),
    *("model.size={width: 192, depth: 5, heads: 3}", "model.predictor={width: 96, depth: 2, heads: 3}"),
]


def small(*overrides: str) -> tuple[Config[Any, Any], Noise]:
    config_type = Config.of(Noise)
    config = build(config_type, [parse_override(text, config_type) for text in [*SMALL, *overrides]])
    return config, Noise(config.data)


def save_untrained(run_dir: Path, root: Path, *more: str) -> Path:
    """A run directory with a checkpoint of initial weights; more: settings."""
    size = "model.size={width: 24, depth: 2, heads: 2}"
    shape = ("data.image_size=16", "data.patch_size=4", size, "data.masking={kind: random}")
    settings = (
        *shape,
        "data.source=folder",
        f"data.root={root}",
        f"run_dir={run_dir}",
        "compute.workers=0",
        "optim.batch_size=8",
        *more,
    )
    config, modality = resolve("image", {}, settings)
    torch.manual_seed(config.seed)
    model = JEPA(config.model, modality, config.target_kinds)
    Checkpoint(3, 1.5, plain(config), model.state_dict(), {}).save(latest(run_dir))
    return run_dir
