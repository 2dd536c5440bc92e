"""How a representation is measured: the `evaluate` section of a config."""

from dataclasses import dataclass
from typing import Literal

from pydantic import PositiveInt


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluation on frozen features after training.

    encoder: whose features; the paper's choice is the target encoder. Up to `train_samples` labelled samples teach the
    probes, up to `validation_samples` choose their settings, up to `test_samples` give the reported number; probes are
    not taught again on the validation samples. scored_split: `validation` keeps the test split unread while a recipe is
    searched: the validation split gives the reported number, training samples that teach nothing choose the settings.
    map_tokens: tokens of each split that serve for tasks of kind `map`.
    """

    enabled: bool = True
    encoder: Literal["target_encoder", "context_encoder"] = "target_encoder"
    scored_split: Literal["validation", "test"] = "test"
    train_samples: PositiveInt = 5_000
    validation_samples: PositiveInt = 1_000
    test_samples: PositiveInt = 2_000
    low_shot_draws: PositiveInt = 5
    map_tokens: PositiveInt = 32_768
    batch_size: PositiveInt = 256
