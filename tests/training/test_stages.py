"""Targets that change during a run, and what a run inherits from the run that it starts from."""

from pathlib import Path
from typing import Any

import pytest
import torch

from jepa.checkpoint import Checkpoint, latest
from jepa.config import ConfigError, build, plain
from jepa.data import Batch
from jepa.distributed import join
from jepa.launch import main, resolve
from jepa.model import JEPA
from jepa.optim import OptimConfig
from jepa.probe.protocol import Which
from jepa.settings.recipe import Recipe
from jepa.settings.resolve import resolve_layers
from jepa.training.config import Config
from jepa.training.log import read_metrics
from jepa.training.signs import logged_signs
from jepa.training.stages import StageConfig
from jepa.training.teachers import FrozenTeacher, SnapshotTeacher
from jepa.weights.opened import load, open_source
from jepa.weights.start import read_start
from modalities.image.modality import Image

SMALL = [
    *("data.source=folder", "data.image_size=16", "data.patch_size=4", "model.size={width: 24, depth: 2, heads: 2}"),
    *("model.predictor={width: 16, depth: 1, heads: 2}", "data.masking={kind: random}", "optim.batch_size=4"),
    *("loss.regulariser=vicreg", "evaluate.enabled=false", "evaluate.report=false", "log_every=1"),
]


def config_of(photos: Path, *overrides: str) -> Config[Any, Any]:
    """The config of a run that may be too short for some of its settings."""
    return resolve_layers("image", Recipe(), [*SMALL, f"data.root={photos}", *overrides], keeps_unused=True).config


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 10, 37])
def test_latent_targets_join_pixels_at_their_share_of_the_steps(photos: Path, share: float, steps: int) -> None:
    both = "{predict: {latent: 1, pixels: 0.5}}"
    stages = f"[{{until: {share}, predict: {{pixels: 0.5}}}}, {both}]" if share else f"[{both}]"
    config = config_of(photos, f"steps={steps}", f"stages={stages}")
    weights = [config.stage(step).weights for step in range(steps)]
    before = round(share * steps)
    assert weights == [{"pixels": 0.5}] * before + [{"pixels": 0.5, "latent": 1.0}] * (steps - before)
    assert sum(stage.steps for stage in config.timeline) == steps
    assert config.target_kinds == ("pixels", "latent")


def test_with_one_stage_every_step_predicts_one_kind_of_target(photos: Path) -> None:
    for target in ("latent", "pixels"):
        config = config_of(photos, "steps=10", f"stages.0.predict={target}")
        assert [config.stage(step).weights for step in range(10)] == [{target: 1.0}] * 10
        assert config.target_kinds == (target,)


def saved_with_a_target_of_zeros(photos: Path, *settings: str) -> tuple[Config[Any, Any], Image, JEPA]:
    config, modality = resolve("image", {}, [*SMALL, f"data.root={photos}", *settings])
    model = JEPA(config.model, modality, config.target_kinds)
    with torch.no_grad():
        for parameter in model.target_encoder.parameters():
            parameter.zero_()
    Checkpoint(1, 1.0, plain(config), model.state_dict(), {}).save(latest(config.run_dir))
    return config, modality, model


@pytest.mark.parametrize(
    ("teacher", "encoder"),
    [
        ("{kind: ema}", "target_encoder"),
        ("{kind: half_life, start_samples: 9, end_samples: 9}", "target_encoder"),
        ("{kind: snapshot}", "context_encoder"),
        ("{kind: frozen}", "context_encoder"),
    ],
)
def test_the_evaluated_encoder_follows_the_last_teacher_unless_one_is_chosen(
    teacher: str, encoder: str, photos: Path, tmp_path: Path
) -> None:
    settings = [f"stages=[{{until: 0.5, predict: pixels}}, {{teacher: {teacher}}}]", f"run_dir={tmp_path / 'run'}"]
    config, modality, model = saved_with_a_target_of_zeros(photos, *settings)

    def is_zero(*which: Which) -> bool:
        return not any(parameter.any() for parameter in load(config.run_dir, *which).parameters())

    assert is_zero() == (encoder == "target_encoder")
    assert is_zero("target_encoder")
    other = "target_encoder" if encoder == "context_encoder" else "context_encoder"
    assert open_source(config.run_dir, [f"evaluate.encoder={other}"]).config.evaluated_encoder == other
    batch = Batch([torch.randn(4, 3, 16, 16)], modality.sample_masks(4, torch.Generator()), [])
    signs = logged_signs(model, config, batch, join("cpu"))[""]
    assert (signs.target_std < 0.1) == (encoder == "target_encoder")


def test_a_run_copies_the_context_encoder_at_its_renewals_only(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run starts from encoders that differ, so the copy before its first step changes the targets."""
    copies: list[tuple[bool, bool]] = []
    update = JEPA.update_target

    def spied(model: JEPA, momentum: float) -> None:
        before = [one.clone() for one in model.target_encoder.parameters()]
        update(model, momentum)
        pairs = zip(model.target_encoder.parameters(), before, model.context_encoder.parameters(), strict=True)
        kept, copied = zip(*((torch.equal(now, old), torch.equal(now, new)) for now, old, new in pairs), strict=True)
        copies.append((all(kept), all(copied)))

    command = ["--modality", "image", *SMALL, f"data.root={photos}"]
    first = ["stages=[{predict: latent}]", "steps=2", "--run-dir", str(tmp_path / "first")]
    assert main([*command, *first]) == 0
    monkeypatch.setattr(JEPA, "update_target", spied)
    stages = "stages=[{predict: latent, teacher: {kind: snapshot, refreshes: 1}}]"
    second = [stages, f"start_from={tmp_path / 'first'}", "steps=6", "--run-dir", str(tmp_path / "second")]
    assert main([*command, *second]) == 0
    before, after = copies[::2], copies[1::2]
    renewed = [step for step, (kept, copied) in enumerate(before) if copied and not kept]
    assert renewed == [0, 3]
    assert all(kept for kept, _ in after)
    assert [line["momentum"] for line in read_metrics(tmp_path / "second")] == [0, 1, 1, 0, 1, 1]


def test_until_latent_targets_join_a_run_equals_one_on_pixels_alone(photos: Path, tmp_path: Path) -> None:
    stages = "stages=[{until: 0.5, predict: pixels}, {predict: {pixels: 1, latent: 1}}]"
    both = [*SMALL, f"data.root={photos}", "steps=6", stages]
    assert main(["--modality", "image", "--run-dir", str(tmp_path / "both"), *both]) == 0
    assert (
        main(
            [
                "--modality",
                "image",
                "--run-dir",
                str(tmp_path / "pixels"),
                *both,
                "stages.0.until=0.99",
                "--keep-unused",
            ]
        )
        == 0
    )
    losses = [[line["loss"] for line in read_metrics(tmp_path / name)] for name in ("both", "pixels")]
    assert losses[0][:3] == losses[1][:3]
    assert all(one > other for one, other in zip(losses[0][3:], losses[1][3:], strict=True))
    trained = [Checkpoint.load(latest(tmp_path / name)).model for name in ("both", "pixels")]
    name = "context_encoder.blocks.0.mlp.0.weight"
    assert not trained[0][name].equal(trained[1][name])


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ({"pixels": 1, "latent": 1}, ["stages.1.predict={latent: 0.5}"]),
        ("pixels", ["stages.1.predict={latent: 0.5}"]),
        ({"pixels": 1, "latent": 1}, ["stages.1.predict.latent=0.5"]),
    ],
)
def test_what_a_stage_predicts_is_replaced_whole(recipe: Any, overrides: list[str]) -> None:
    stages = {"stages": [{"until": 0.5, "predict": "pixels"}, {"predict": recipe, "teacher": {"kind": "snapshot"}}]}

    def predicted(*overrides: str) -> dict[str, float]:
        stage = resolve("image", stages, overrides)[0].stages[1]
        assert stage.teacher == SnapshotTeacher()
        return stage.predict

    assert predicted(*overrides) == {"latent": 0.5}
    assert predicted("stages.1.predict=latent") == {"latent": 1}
    both = ["stages.1.predict.latent=0.5", "stages.1.predict.pixels=2"]
    assert predicted(*both) == predicted("stages.1.predict={pixels: 2, latent: 0.5}") == {"pixels": 2, "latent": 0.5}
    layered = build(
        Config.of(Image), [{"modality": "image", "run_dir": "."}, stages, {"stages": {"1": {"predict": {"latent": 1}}}}]
    )
    assert layered.stages[1].predict == {"latent": 1}


def test_an_optimiser_or_a_lone_word_for_a_teacher_keeps_the_other_settings_of_a_recipe() -> None:
    recipe = {
        "optim": {"batch_size": 32, "peak_lr": 0.002},
        "stages": [{"predict": "pixels", "teacher": {"start": 0.9}}],
    }
    config = resolve("image", recipe, ["optim.optimizer=muon", "stages.0.teacher=frozen"])[0]
    assert config.optim == OptimConfig(optimizer="muon", batch_size=32, peak_lr=0.002)
    assert config.stages == (StageConfig(predict={"pixels": 1.0}, teacher=FrozenTeacher()),)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.0.until=1.5", r"stages\.0\.until: .* less than or equal to 1"),
        ("stages.0.until=0.5", r"stages\.0\.until: 0\.5, but the last stage ends at 1"),
        ("stages=[{until: 0.5}, {until: 0.5}, {}]", r"^stages\.0\.until: 0\.5 must be below .* 0\.5"),
        ("stages.0.predict.latent=0", r"stages\.0\.predict: a stage predicts at least one kind"),
        ("stages.0.predict={latent: .inf}", r"stages\.0\.predict\.latent: .*finite"),
        ("stages=[{}, {}]", r"^stages\.0: another stage follows; give stages\.0 an until below 1"),
        ("stages.0.teacher.strat=0.9", r"did you mean 'stages\.0\.teacher\.start'\?"),
        ("stages.0.teacher=snap", r"^stages\.0\.teacher\.kind: should be 'ema', .* or 'frozen', not 'snap'$"),
        ("stages.0.teacher=5", r"^stages\.0\.teacher: should be ema, .* frozen, or a section .* kind, not 5$"),
        ("stages.0.teacher={refreshes: 3}", r"'stages\.0\.teacher' of kind ema takes: kind, start, end$"),
        ("stages.0.predict=[latent]", r"^stages\.0\.predict: should be a kind of target, .*, not \['latent'\]$"),
        ("stages.1.predict=pixels", r"^stages has 1 item, so there is no stages\.1"),
        ("loss.regulariser=none;model.projector=8", r"^model\.projector: .* loss\.regulariser"),
        ("data.views=2", r"mask_sets 1 do not divide among 2 views"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(photos: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve("image", {}, [*SMALL, f"data.root={photos}", *override.split(";")])


def test_a_run_that_starts_from_another_has_its_networks_and_its_own_schedule(photos: Path, tmp_path: Path) -> None:
    command = ["--modality", "image", *SMALL, f"data.root={photos}"]
    assert main([*command, "--run-dir", str(tmp_path / "first"), "steps=5"]) == 0
    resumed = [*command, "steps=4", f"start_from={tmp_path / 'first'}", "optim.decay=linear", "optim.final_lr=0"]
    still = "stages.0.teacher={kind: frozen}"
    assert main([*resumed, "--run-dir", str(tmp_path / "frozen"), "optim.peak_lr=1e-12", still]) == 0
    first, frozen = (Checkpoint.load(latest(tmp_path / name)) for name in ("first", "frozen"))
    assert frozen.step == 4
    for name, value in frozen.model.items():  # the source has no average, so its context encoder gives both encoders
        source = first.model[name.replace("target_encoder.", "context_encoder.")]
        torch.testing.assert_close(value, source, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("start", "sentence"), [("nowhere", "no checkpoint at"), ("first", "the first is")])
def test_a_missing_start_and_one_with_other_networks_are_refused(
    photos: Path, tmp_path: Path, start: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--modality", "image", *SMALL, f"data.root={photos}", "steps=1"]
    assert main([*command, "--run-dir", str(tmp_path / "first")]) == 0
    wider = ["model.predictor.width=24", f"start_from={tmp_path / start}"]
    assert main([*command, *wider, "--run-dir", str(tmp_path / "second")]) == 1
    assert sentence in capsys.readouterr().err


def test_an_average_after_a_frozen_teacher_starts_from_a_copy_and_short_stages_do_not_count(photos: Path) -> None:
    def copies(stages: str, *more: str) -> list[int]:
        config = config_of(photos, "steps=10", f"stages={stages}", *more)
        return [step for step in range(10) if config.target_update(step).before == 0]

    def follows(stages: str, *more: str) -> list[int]:
        config = config_of(photos, "steps=10", f"stages={stages}", *more)
        return [step for step in range(10) if config.target_update(step).after == 0]

    # Nothing reads these target encoders, but probes and evaluation do.
    assert follows("[{until: 0.4, predict: pixels, teacher: frozen}, {predict: latent}]") == [0, 1, 2, 3]
    assert follows("[{until: 0.2, predict: pixels}, {predict: latent, teacher: snapshot}]") == [0, 1]
    assert follows("[{until: 0.4, predict: latent, teacher: frozen}, {predict: latent}]") == []
    assert follows("[{until: 0.4, predict: pixels}, {predict: latent, teacher: frozen}]") == []
    assert copies("[{until: 0.4, predict: pixels, teacher: frozen}, {predict: latent}]") == [4]
    assert copies("[{until: 0.4, predict: pixels}, {predict: latent}]") == []
    assert copies("[{until: 0.4, predict: latent, teacher: frozen}, {predict: latent}]") == []
    short = "[{until: 0.5, predict: pixels}, {until: 0.51, predict: latent}, {teacher: {kind: snapshot}}]"
    config = config_of(photos, "steps=10", f"stages={short}")
    assert [type(stage.teacher) for stage in config.timeline] == [FrozenTeacher, SnapshotTeacher]
    config = config_of(photos, "steps=10", "stages=[{until: 0.99, predict: latent}, {teacher: frozen}]")
    assert config.evaluated_encoder == "target_encoder"


def test_remedies_for_a_collapse_name_nothing_that_is_set(photos: Path) -> None:
    published = config_of(photos, "stages=[{predict: latent}]", "loss.regulariser=none", "model.target_layers=1")
    assert published.remedies[1:] == [
        "a slower or a snapshot teacher",
        "loss.regulariser=vicreg",
        "model.target_layers=0",
    ]
    recipe = config_of(photos, "stages=[{teacher: snapshot}]", "loss.regulariser=vicreg", "model.target_layers=0")
    assert recipe.remedies == ["a smaller optim.peak_lr", "a larger loss.regulariser_weight"]


@pytest.mark.parametrize(("teacher", "is_kept"), [("frozen", False), ("{kind: ema, start: 0.5}", True)])
def test_a_start_from_a_run_without_an_averaged_teacher_takes_its_context_encoder_twice(
    photos: Path, tmp_path: Path, teacher: str, is_kept: bool
) -> None:
    settings = [f"stages=[{{predict: latent, teacher: {teacher}}}]", f"run_dir={tmp_path / 'run'}"]
    config, _, _ = saved_with_a_target_of_zeros(photos, *settings)
    weights = read_start(str(config.run_dir)).model
    name = "blocks.0.mlp.0.weight"
    assert weights[f"target_encoder.{name}"].equal(weights[f"context_encoder.{name}"]) is not is_kept
