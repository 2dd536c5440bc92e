"""Settings without effect: an error where the user sets one, a note where an override switches one of a recipe off."""

from pathlib import Path
from typing import Any

import pytest
from tiny import Noise

from jepa.config import ConfigError, Tree, parse_overrides
from jepa.config.effects import Use, check_effects
from jepa.config.recipes import read_recipe, recipes
from jepa.launch import _configured, main, resolve
from jepa.settings.arguments import launch_parser
from jepa.settings.recipe import Recipe
from jepa.settings.resolve import resolve_layers
from jepa.training.config import Config

GEN = "is generated and reads no files"
FILES = ["data.source=folder", "data.root=somewhere"]
NPY = ["data.source=npy", "data.root=somewhere"]
ONLY_PIXELS = "stages=[{predict: pixels}]"
PIXELS = "stages.0.predict=pixels"
NO_LATENT = "no stage predicts representations"
COPIED = "[{until: 0.5, predict: pixels, teacher: {kind: frozen}}, {teacher: {kind: snapshot}}]"
SHORT = "[{until: 0.1, predict: pixels}, {predict: latent}]"
SNAPSHOT = "stages=[{predict: pixels, teacher: {kind: snapshot}}]"
REFRESHED = "stages=[{teacher: {kind: snapshot, refreshes: 3}}]"
VIEWS = ["stages.0.predict=views", "data.mask_sets=2", "data.views=2", "loss.regulariser=sigreg"]
LATE_VIEWS = "stages=[{until: 0.1, predict: pixels}, {predict: views}]"  # pixels for less than a step of 5
ONE_SET = ["data.mask_sets=1", "loss.regulariser=vicreg"]


@pytest.mark.parametrize(
    ("modality", "overrides", "sentence"),
    [
        ("image", ["data.root=somewhere", "data.source=scenes"], f"data.root: has no effect: data.source=scenes {GEN}"),
        ("video", ["data.root=somewhere", "data.source=scenes"], "data.root"),
        ("image-text", ["data.root=somewhere", "data.source=scenes"], "data.root"),
        ("image", [*FILES, "data.scenes.seed=3"], "data.scenes: has no effect: data.source=folder reads files"),
        ("video", [*FILES, "data.scenes={train: 9}"], "data.scenes"),
        ("image", ["steps=9", "keep_every=10"], "keep_every: has no effect: the run has 9 steps"),
        ("image", ["data.labels=none"], "data.labels: has no effect: data.source=scenes makes its own labels"),
        ("image", ["data.bands=[1]"], "data.bands: has no effect: data.source=scenes decodes no image files"),
        ("image", [*FILES, "data.torchvision={split: balanced}"], "data.torchvision"),
        ("video", ["data.decoder=pyav"], "data.decoder: has no effect: data.source=scenes reads no video files"),
        ("video", [*NPY, "data.decoder=pyav"], "data.decoder"),
        ("video", [*NPY, "data.value_range=[0, 9]"], "data.value_range"),
        ("video", [*FILES, "data.stored_fps=9"], "data.stored_fps"),
        ("video", ["data.whole_mb=0"], "data.whole_mb"),
        ("video", [*FILES, "data.fps=2", "data.step=3"], "data.step: has no effect: data.fps decides"),
        ("video", ["data.tubelet=1", "data.change_scale=3"], "data.change_scale"),
        (
            "image",
            ["data.masking={kind: tube, time_scale: 0.5}"],
            "data.masking.time_scale: has no effect: the grid has",
        ),
        ("image-text", ["data.objectives={regions: 0, drop_caption: 1}"], "data.objectives.drop_caption"),
        ("image-text", ["data.objectives.hidden_words=0.2"], "data.objectives.hidden_words"),
        ("image-text", ["data.objectives.regions=0", "data.masking.targets=2"], "data.masking"),
        ("image", [f"stages={COPIED}"], "stages.0.teacher: has no effect: stages.0 needs no target encoder"),
        (
            "image",
            ["steps=5", f"stages={SHORT}"],
            "stages.0: has no effect: its share of the run's 5 steps rounds to none",
        ),
        ("image", ["steps=3", REFRESHED], "stages.0.teacher.refreshes: has no effect: the stage has room for 2, which"),
        ("image", [*VIEWS, "loss.invariance=1"], "loss.invariance: has no effect: every stage predicts views, whose"),
        ("image", ["steps=5", *VIEWS, LATE_VIEWS, "loss.invariance=1"], "loss.invariance: has no effect: every stage"),
        ("image", ["loss.prediction_weight=0", ONE_SET[1], PIXELS], "stages.0.predict: has no effect"),
        ("image", [PIXELS, "model.target_layers=2"], f"model.target_layers: has no effect: {NO_LATENT}"),
        ("image", [PIXELS, "loss.normalise_prediction=true"], "loss.normalise_prediction"),
        ("image", [*VIEWS, "model.predictor.depth=1"], "model.predictor: has no effect: no stage predicts tokens"),
        ("image", [*VIEWS, "data.masking={kind: random, predicted: 0.5}"], "data.masking.predicted: has no effect"),
        ("image", ["model.projector_norm=batch"], "model.projector_norm: has no effect: there is no model.projector"),
        ("image", [SNAPSHOT], "stages.0.teacher: has no effect: the"),
        ("image", [SNAPSHOT, "evaluate.encoder=context_encoder"], "stages.0.teacher: has no effect: the last"),
        ("image", ["start_fresh=[predictor]"], "start_fresh: has no effect: there is no start_from"),
        ("image", ["compute.workers=0", "compute.prefetch_mb=9"], "compute.prefetch_mb: has no effect"),
        ("image", ["model.predictor.share_mask_token=true"], "model.predictor.share_mask_token"),
        ("image", ["model.target_join=each"], "model.target_join: has no effect: model.target_layers names a single"),
        ("image", ["model.projector=8"], "model.projector: has no effect: there is no loss.regulariser"),
        ("image", ["loss.regulariser_weight=8"], "loss.regulariser_weight"),
        ("image", ["loss.regulariser=vicreg", "loss.regulariser_weight=0"], "loss.regulariser: has no effect: loss."),
        ("image", [*ONE_SET, "loss.agreement=1"], "loss.agreement: has no effect: it compares streams"),
        ("image", [*ONE_SET, "loss.invariance=1"], "loss.invariance: has no effect: it compares sets of masks"),
        ("image", ["loss.contrast_weight=2"], "loss.contrast_weight: has no effect: there is no model.contrast"),
        ("image", ["model.predictor={attention: cross, blocks: joint}"], "model.predictor.blocks"),
        ("image", ["optim.warmup=0", "optim.start_lr=0.1"], "optim.start_lr"),
        ("image", ["optim.decay=constant", "optim.final_lr=0.1"], "optim.final_lr"),
        ("image", ["compute.parallel=fsdp"], "compute.parallel: has no effect: there is one process"),
        ("image", ["evaluate.forecast_cut=0.3"], "evaluate.forecast_cut: has no effect: image data has no time axis"),
        ("video", ["evaluate.forecast_samples=0", "evaluate.forecast_cut=0.3"], "evaluate.forecast_samples is 0"),
        ("video", [PIXELS, "evaluate.forecast_samples=3"], NO_LATENT),
        ("image", ["evaluate.gallery=10"], "evaluate.gallery: has no effect: image data lacks two matching streams"),
        ("video", ["evaluate.gain_samples=10"], "evaluate.gain_samples"),
        ("tiny:Noise", ["evaluate.train_samples=9"], "evaluate.train_samples: has no effect: the data has no labels"),
        ("image", ["evaluate.attentive_steps=9"], "evaluate.attentive_steps: has no effect: no task has an attentive"),
    ],
)
def test_a_setting_of_the_user_without_effect_is_one_sentence(
    modality: str, overrides: list[str], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve_layers(modality, Recipe(), overrides, processes=1)
    assert sentence in str(refused.value)
    assert str(refused.value).endswith(", or change that")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("modality", "overrides"),
    [
        ("image", ["evaluate.forecast_samples=0", "evaluate.gain_samples=0"]),  # they switch off what is off
        ("image", ["stages=[{predict: pixels, teacher: {start: 0.9}}]"]),  # evaluation reads the moving average
        ("video", [*FILES, "data.decoder=pyav", "data.step=2", "evaluate.forecast_cut=0.4"]),
        ("image-text", ["evaluate.gallery=9", "data.objectives.words=0.5", "data.objectives.hidden_words=0.2"]),
        ("image", ["data.mask_sets=2", "loss.regulariser=vicreg", "loss.invariance=1", "model.projector=8"]),
        ("image", ["model.target_layers=2", "model.target_join=each", "evaluate.attentive=[2]"]),
        ("image", ["steps=6", f"stages={SHORT}"]),
        ("image", ["steps=4", REFRESHED]),
        ("image", ["data.masking={kind: block, targets: 2}", "model.predictor.blocks=joint"]),
    ],
)
def test_settings_with_effect_are_accepted(modality: str, overrides: list[str]) -> None:
    assert resolve_layers(modality, Recipe(), overrides, processes=1).notes == ()


@pytest.mark.parametrize("name", recipes())
def test_recipes_need_no_notes(name: str) -> None:
    modality = name.split("/")[0].replace("_", "-")
    assert resolve_layers(modality, Recipe(read_recipe(name)), [f"evaluate.batch_size={7}"], processes=64).notes == ()


def test_an_override_that_switches_settings_of_a_recipe_off_is_noted_once_for_each_reason() -> None:
    resolved = resolve_layers(
        "image", Recipe(read_recipe("image")), [ONLY_PIXELS, "loss.regulariser=none"], processes=1
    )
    assert resolved.notes == (
        f"no effect here: model.target_layers, model.target_join of the recipe, as {NO_LATENT}",
        "no effect here: loss.invariance, model.projector, loss.regulariser_weight of the recipe, as there is no "
        "loss.regulariser",
    )
    assert resolved.config.model.projector == 0
    assert resolve_layers("image", Recipe(read_recipe("image")), ["steps=4"], processes=1).notes == (
        "no effect here: stages.0 of the recipe, as its share of the run's 4 steps rounds to none",
        "no effect here: stages.1.teacher.refreshes of the recipe, as the stage has room for 3, which is a copy before "
        "every step",
    )


def test_a_recipe_may_be_named_by_its_path() -> None:
    arguments = launch_parser().parse_args(["--modality", "video", "--config", str(recipes()["video"])])
    assert _configured(arguments, []).notes == ()


def test_settings_without_effect_even_alone_are_errors_in_a_file_of_the_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.yaml"
    command = ["--modality", "image", "--config", str(file), "--dry-run", "run_dir=unused"]
    file.write_text("stages: [{predict: pixels}]\nmodel: {target_layers: 2}\n")
    assert main(command) == 1
    error = capsys.readouterr().err
    assert f"model.target_layers: has no effect: {NO_LATENT}" in error
    recipe = {"model": {"target_layers": 2}}
    resolved = resolve_layers("image", Recipe(recipe, users_file=recipe), [ONLY_PIXELS])
    assert resolved.notes[0].startswith("no effect here: model.target_layers of the recipe")

    complete = resolve("image", read_recipe("image"), [ONLY_PIXELS, "run_dir=unused"])[0]
    tree: Tree = {"modality": "image", "model": {"target_layers": complete.model.target_layers}}
    assert (
        resolve_layers("image", Recipe({"stages": [{"predict": "pixels"}], **tree}), []).notes == ()
    )  # config.yaml of a run


def test_settings_of_a_base_that_the_file_of_the_user_switches_off_are_noted(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    arguments = launch_parser().parse_args(["--modality", "image", "--config", str(file)])
    alone = "base: image\nstages: [{predict: views, teacher: {kind: frozen}}]\nloss: {regulariser: sigreg}\n"
    file.write_text(alone)
    notes = _configured(arguments, []).notes
    assert "no effect here: loss.distance, model.predictor of the recipe, as no stage predicts tokens" in notes
    file.write_text(f"{alone}model: {{predictor: {{depth: 1}}}}\n")
    with pytest.raises(ConfigError, match=r"^model\.predictor: has no effect: .* from the file of --config, or"):
        _configured(arguments, [])


@pytest.mark.parametrize(
    ("modality", "overrides", "path"),
    [
        ("image", ["data.masking.kind=random"], "data.masking"),
        ("video", ["data.views=2", "data.masking=[{kind: random}, {kind: random}]"], "data.views"),
        ("image", ["compute.activation_checkpointing=true"], "compute.activation_checkpointing"),
        ("image", ["evaluate.report=false"], "evaluate.report"),
    ],
)
def test_an_evaluation_ignores_no_override(modality: str, overrides: list[str], path: str) -> None:
    config, built = resolve(modality, {}, overrides)
    changes = parse_overrides(overrides, Config.of(type(built)))
    with pytest.raises(ConfigError, match=f"^{path}: has no effect: "):
        check_effects(Use(config, built, evaluates=True, set_by_user=changes), changes)


def test_plug_ins_declare_their_own_settings_without_effect() -> None:
    config, modality = resolve("tiny:Noise", {}, [])
    assert isinstance(modality, Noise)
    found: dict[str, Any] = check_effects(Use(config, modality), {})
    assert "evaluate.forecast_cut" in found
    assert not [path for path in found if path.startswith("data.")]


def test_a_sweep_may_switch_a_setting_off_in_some_runs_but_not_in_all(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sweep(*arguments: str) -> int:
        data = [f"data.root={photos}", "data.image_size=32", "evaluate.enabled=false", "evaluate.report=false"]
        place = ["--run-dir", str(tmp_path / "sweep"), "--slurm", "cpu", "--slurm-dry-run"]
        return main(["--modality", "image", *place, *data, "optim.batch_size=64", *arguments])

    assert sweep("--sweep", "loss.regulariser_weight=0,0.1", "loss.regulariser=vicreg") == 0
    assert "no effect here: loss.regulariser, as loss.regulariser_weight is 0" in capsys.readouterr().err
    script = (tmp_path / "sweep" / "slurm" / "submission_dry_run.sh").read_text()
    runs = [line for line in script.splitlines() if line.startswith("# each task runs")]
    assert ["--keep-unused" in line for line in runs] == [True, False]
    assert sweep("--sweep", "seed=1,2", "loss.regulariser_weight=0.1", "loss.regulariser=none") == 1
    assert "error: loss.regulariser_weight: has no effect: there is no loss.regulariser." in capsys.readouterr().err
