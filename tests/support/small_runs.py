"""The config and modality of a small run on noise."""

from typing import Any

from tiny import Noise

from jepa.config import build, parse_override
from jepa.training.config import Config

SMALL = [
    *("modality=noise", "run_dir=unused", "steps=2", "data.grid=[8,12]", "optim.batch_size=32", "compute.device=cpu"),
    *("model.size={width: 192, depth: 5, heads: 3}", "model.predictor={width: 96, depth: 2, heads: 3}"),
]


def small(*overrides: str) -> tuple[Config[Any, Any], Noise]:
    config_type = Config.of(Noise)
    config = build(config_type, [parse_override(text, config_type) for text in [*SMALL, *overrides]])
    return config, Noise(config.data)
