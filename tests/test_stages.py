"""A run in two stages: which step belongs to which, and that each is the method it says it is."""

from pathlib import Path
from typing import Any

import pytest

from jepa.config import ConfigError
from jepa.launch import resolve
from jepa.model import JEPA
from jepa.optim import adamw, set_schedule
from jepa.train import Config

SMALL = [
    *("data.source=folder", "data.image_size=16", "data.patch_size=4", "model.size={width: 24, depth: 2, heads: 2}"),
    *("model.predictor={width: 16, depth: 1, heads: 2}", "data.masking={kind: random}", "optim.batch_size=4"),
    *("loss.regulariser=vicreg", "loss.normalise_prediction=true", "evaluate.enabled=false", "compute.workers=0"),
]


def config_of(photos: Path, *overrides: str) -> Config[Any]:
    return resolve("image", {}, [*SMALL, f"data.root={photos}", *overrides])[0]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 10, 37])
def test_stages_share_out_all_steps_in_order(photos: Path, share: float, steps: int) -> None:
    config = config_of(photos, f"steps={steps}", f"first_stage.share={share}")
    kinds = [config.stage(step).target for step in range(steps)]
    assert kinds == ["pixels"] * round(share * steps) + ["latent"] * (steps - round(share * steps))
    assert sum(stage.steps for stage in config.stages) == steps
    assert config.target_kinds == (("pixels", "latent") if "pixels" in kinds else ("latent",))


def test_each_stage_warms_up_to_its_own_peak_and_decays(photos: Path) -> None:
    config = config_of(photos, "steps=200", "first_stage={share: 0.4, peak_lr: 4e-3}", "optim.peak_lr=1e-3")
    optimizer = adamw(JEPA(config.model, resolve("image", {}, [*SMALL, f"data.root={photos}"])[1]), config.optim)
    rates = []
    for step in range(200):
        stage = config.stage(step)
        rates.append(set_schedule(optimizer, step - stage.first_step, stage.steps, stage.optim))
    assert rates[0] == rates[80] == 0
    assert max(rates[:80]) == rates[8] == pytest.approx(4e-3)
    assert max(rates[80:]) == rates[92] == pytest.approx(1e-3)
    assert rates[79] < 1e-5
    assert rates[199] < 1e-5


def test_the_first_stage_is_a_masked_autoencoder_and_a_baseline_on_pixels_has_one_stage(photos: Path) -> None:
    first, second = config_of(photos, "steps=10", "first_stage.share=0.5").stages
    assert (first.loss.regulariser, first.loss.normalise_prediction) == ("none", False)
    assert (second.loss.regulariser, second.loss.normalise_prediction) == ("vicreg", True)
    (only,) = config_of(photos, "steps=10", "first_stage.share=0.5", "target=pixels").stages
    assert (only.target, only.steps, only.loss.regulariser) == ("pixels", 10, "vicreg")


def test_a_stage_that_leaves_nothing_to_the_other_is_refused(photos: Path) -> None:
    with pytest.raises(ConfigError, match=r"first_stage\.share: .* less than 1"):
        config_of(photos, "first_stage.share=1.0")
