"""Configs with the former settings `target`, `curriculum` and `momentum` mean what they meant."""

from typing import Any

import numpy as np
import pytest

from jepa.compat.stages import current, former
from jepa.config import ConfigError, build, plain
from jepa.settings.resolve import resolve
from jepa.training.config import Config
from modalities.image.modality import Image

LINEAR = {"kind": "linear", "start": 0.98, "end": 1.0}
HALF_LIFE = {"kind": "half_life", "start_samples": 300.0, "end_samples": 7000.0}


def former_momentum(step: int, steps: float, batch_size: int, momentum: dict[str, Any]) -> float:
    progress = min(1.0, step / steps)
    if momentum["kind"] == "linear":
        return float(momentum["start"] + (momentum["end"] - momentum["start"]) * progress)
    ratio = momentum["end_samples"] / momentum["start_samples"]
    return float(0.5 ** (batch_size / (momentum["start_samples"] * ratio**progress)))


@pytest.mark.parametrize("momentum", [LINEAR, HALF_LIFE, {**LINEAR, "start": 1.0}], ids=["linear", "half", "frozen"])
@pytest.mark.parametrize(("share", "length"), [(0.0, 1.25), (0.85, 1.0), (1 / 3, 1.3), (0.9999, 1.0)])
def test_a_former_config_has_its_targets_and_its_momentum_at_every_step(
    share: float, length: float, momentum: dict[str, Any]
) -> None:
    stored = {"modality": "image", "run_dir": "unused", "steps": 4000, "optim": {"schedule_length": length}}
    stored |= {"curriculum": {"pixel_weight": 0.5, "latent_from": share}, "momentum": momentum}
    config: Config[Any, Any] = build(Config.of(Image), [current(stored)])
    before = round(share * 4000)
    weights = [config.weights(step) for step in range(4000)]
    assert weights == [{"pixels": 0.5}] * before + [{"pixels": 0.5, "latent": 1.0}] * (4000 - before)
    assert config.target_kinds == ("pixels", "latent")
    assert config.evaluated_encoder == "target_encoder"
    updates = [config.target_update(step) for step in range(4000)]
    expected = [former_momentum(step, 4000 * length, config.optim.batch_size, momentum) for step in range(4000)]
    # Weights are averaged in fp32.
    shares = [np.float32(1 - np.array(values)) for values in ([one.after for one in updates], expected)]
    np.testing.assert_array_equal(*shares)
    assert all(one.before == 1 for one in updates)
    assert current(former(plain(config))) == plain(config)
    for stage in ({"predict": "latent"}, {"until": 1.0, "predict": {"latent": 1.0}, "teacher": {"kind": "ema"}}):
        assert former({**stored, "stages": [stage]}) == {**stored, "stages": [stage]}  # not validated


@pytest.mark.parametrize(
    ("overrides", "now"),
    [
        (["target=pixels"], ["stages=[{predict: pixels}]"]),
        (
            ["curriculum={pixel_weight: 2, latent_from: 0.5}"],
            ["stages=[{until: 0.5, predict: {pixels: 2}}, {predict: {pixels: 2, latent: 1.0}}]"],
        ),
        (
            ["target=own:function", "momentum.start=0.9"],
            ["stages=[{predict: own:function, teacher: {kind: ema, start: 0.9, end: 1.0}}]"],
        ),
        (["momentum.start=0.9"], ["stages.0.teacher={kind: ema, start: 0.9, end: 1.0}"]),
    ],
)
def test_a_former_setting_of_a_user_is_an_error_that_says_how_to_write_it_now(
    overrides: list[str], now: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve("image", {}, overrides)
    assert f"write {' '.join(now)}; see docs/settings.md" in str(refused.value)
    with pytest.raises(ConfigError, match="write stages"):
        resolve("image", {"curriculum": {"latent_from": 0.5}}, [])
    assert resolve("image", {}, now)[0].timeline


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"momentum": {**HALF_LIFE, "start_samples": 0}}, r"^momentum\.start_samples: .* above 0, not 0$"),
        ({"momentum": {**LINEAR, "start": "a"}}, r"^momentum\.start: .* at least 0 and at most 1, not 'a'$"),
        ({"momentum": {**LINEAR, "kind": "weird"}}, r"^momentum\.kind: should be linear or half_life, not 'weird'$"),
        ({"steps": 0}, r"^steps: .* at least 1, not 0$"),
        ({"steps": "x"}, r"^steps: .* at least 1, not 'x'$"),
        ({"curriculum": 5}, r"^curriculum: should be a section of settings, not 5$"),
        ({"curriculum": {"latent_from": True}}, r"^curriculum\.latent_from: "),
        ({"target": ["latent"]}, r"^target: "),
        ({"optim": {"schedule_length": 0}}, r"^optim\.schedule_length: "),
    ],
)
def test_a_former_setting_without_a_meaning_is_refused_by_name(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        current({"modality": "image", "steps": 100, "momentum": LINEAR, **settings})
