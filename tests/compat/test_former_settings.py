"""Configs with the former settings `target`, `curriculum` and `momentum` mean what they meant."""

import json
import re
import shlex
from typing import Any

import numpy as np
import pytest

from jepa.compat.stages import current, former
from jepa.config import ConfigError, build, plain
from jepa.config.recipes import read_recipe
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


NONE: dict[str, Any] = {}
SNAPSHOT = "teacher: {kind: snapshot, refreshes: 4}"
COPIES = read_recipe("image")  # pixels, then pixels and representations of a snapshot
AVERAGES = {
    "stages": [
        {"until": 0.8, "predict": "pixels", "teacher": {"start": 0.98, "end": 0.99}},
        {"predict": {"pixels": 1, "latent": 1}, "teacher": {"start": 0.99}},
    ]
}


@pytest.mark.parametrize(
    ("recipe", "overrides", "now"),
    [
        (NONE, ["target=pixels"], ["stages=[{predict: pixels}]"]),
        (NONE, ["curriculum={pixel_weight: 2}"], ["stages=[{predict: {pixels: 2, latent: 1}}]"]),
        (
            NONE,
            ["curriculum={pixel_weight: 2, latent_from: 0.5}", "momentum.start=1"],
            [
                "stages=[{until: 0.5, predict: {pixels: 2}, teacher: {kind: ema, start: 1, end: 1}}, "
                "{predict: {pixels: 2, latent: 1}, teacher: {kind: ema, start: 1, end: 1}}]"
            ],
        ),
        (
            NONE,
            ["target=own:function", "momentum.start=0.9"],
            ["stages=[{predict: own:function, teacher: {kind: ema, start: 0.9, end: 1}}]"],
        ),
        (NONE, ["momentum.start=0.9"], ["stages.0.teacher={kind: ema, start: 0.9, end: 1}"]),
        (COPIES, ["target=pixels"], ["stages=[{predict: pixels, teacher: {kind: frozen}}]"]),
        (COPIES, ["curriculum.pixel_weight=0"], [f"stages=[{{predict: latent, {SNAPSHOT}}}]"]),
        (
            COPIES,
            ["curriculum.latent_from=0.3"],
            [f"stages=[{{until: 0.3, predict: pixels}}, {{predict: {{pixels: 1, latent: 1}}, {SNAPSHOT}}}]"],
        ),
        (
            COPIES,
            ["momentum={kind: half_life, start_samples: 10, end_samples: 100000}"],
            [
                "stages.0.teacher={kind: half_life, start_samples: 10, end_samples: 25.1188643150958}",
                "stages.1.teacher={kind: half_life, start_samples: 25.1188643150958, end_samples: 100000}",
            ],
        ),
        (AVERAGES, ["target=pixels"], ["stages=[{predict: pixels, teacher: {kind: ema, start: 0.98, end: 1}}]"]),
        (
            AVERAGES,
            ["momentum.end=0.99"],
            [
                "stages.0.teacher={kind: ema, start: 0.98, end: 0.988}",
                "stages.1.teacher={kind: ema, start: 0.988, end: 0.99}",
            ],
        ),
    ],
)
def test_a_former_setting_of_a_user_is_an_error_that_says_how_to_write_it_now(
    recipe: dict[str, Any], overrides: list[str], now: list[str]
) -> None:
    """What it prints is accepted over the recipe, and it changes nothing that the user did not name."""
    with pytest.raises(ConfigError) as refused:
        resolve("image", recipe, overrides)
    printed = re.search("other settings: write (.*); see docs/settings.md$", str(refused.value))
    assert printed
    assert shlex.split(printed[1]) == now
    assert resolve("image", recipe, now)[0].timeline


@pytest.mark.parametrize("share", [0.3, 1 / 3])
@pytest.mark.parametrize("momentum", [LINEAR, {**HALF_LIFE, "start_samples": 10, "end_samples": 1e5}])
def test_a_former_run_and_what_is_printed_for_its_settings_have_equal_stages(
    share: float, momentum: dict[str, Any]
) -> None:
    recipe = {"stages": [{"until": share, "predict": "pixels"}, {"predict": {"pixels": 1, "latent": 1}}]}
    with pytest.raises(ConfigError) as refused:
        resolve("image", recipe, [f"momentum={json.dumps(momentum)}"])
    now = shlex.split(str(refused.value).split(" write ")[1].removesuffix("; see docs/settings.md"))
    stored = {"curriculum": {"pixel_weight": 1.0, "latent_from": share}, "momentum": momentum}
    former_run: Config[Any, Any] = build(Config.of(Image), [current({"modality": "image", "run_dir": "r", **stored})])
    assert resolve("image", recipe, now)[0].stages == former_run.stages


def test_a_short_run_keeps_the_pixels_of_its_recipe() -> None:
    for steps in (4, 400):  # of 4, pixels alone have none
        with pytest.raises(ConfigError, match=r"predict: \{pixels: 1, latent: 1\}"):
            resolve("image", COPIES, ["target=latent", f"steps={steps}"])


def test_a_recipe_with_a_setting_that_is_none_is_translated() -> None:
    recipe = {"stages": [{"teacher": {"kind": "snapshot", "refreshes": None}}]}
    with pytest.raises(ConfigError, match=r"write 'stages=\[.*refreshes: null"):
        resolve("image", recipe, ["curriculum.pixel_weight=1"])


def test_a_former_setting_in_a_recipe_is_refused_and_one_that_lacks_numbers_says_which() -> None:
    with pytest.raises(ConfigError, match="write 'stages"):
        resolve("image", {"curriculum": {"latent_from": 0.5}, "stages": "none"}, [])
    with pytest.raises(ConfigError, match=r"^momentum: half_life needs start_samples and end_samples"):
        resolve("image", COPIES, ["momentum.kind=half_life"])


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
