"""A run that starts from other networks takes over what belongs to them, and trains on from their loss."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch

from jepa.checkpoint import Checkpoint, latest
from jepa.checkpoint.file import kept
from jepa.config import ConfigError, plain, read_yaml
from jepa.config.recipes import read_recipe
from jepa.launch import main
from jepa.settings.recipe import Recipe
from jepa.settings.resolve import Resolved, resolve, resolve_layers
from jepa.settings.start import Start, StartUse
from jepa.training.checks import check_config
from jepa.training.log import read_metrics
from jepa.weights.convert import main as convert
from jepa.weights.opened import open_source

QUICK = ["compute.device=cpu", "optim.batch_size=8", "log_every=1", "evaluate.enabled=false", "evaluate.report=false"]
BOTH = "stages=[{predict: {pixels: 1, latent: 1}}]"
SLOW = "teacher: {start: 0.9, end: 0.9}"
STAGES = f"stages=[{{until: 0.5, predict: pixels, {SLOW}}}, {{predict: {{pixels: 1, latent: 1}}, {SLOW}}}]"
SHAPE = [
    *("data.image_size=16", "data.patch_size=4", "model.size={width: 24, depth: 2, heads: 2}"),
    *("model.predictor={width: 16, depth: 1, heads: 2}", "data.masking={kind: random, ratio: 0.6}"),
    *("loss.distance=l2", STAGES, "data.pixel_mean=[0.5,0.5,0.5]"),
]


def launch(run_dir: Path, photos: Path, *more: str) -> int:
    return main(["--modality", "image", "--run-dir", str(run_dir), f"data.root={photos}", *QUICK, *more])


def losses(run_dir: Path) -> list[float]:
    return [float(line["loss"]) for line in read_metrics(run_dir)]


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "trained"
    recipe = run_dir.parent / "plain.yaml"
    recipe.write_text("{}")
    settings = ("--config", str(recipe), "steps=40", "optim.peak_lr=5e-3")
    assert launch(run_dir, photos, *settings, *SHAPE) == 0
    return run_dir


@pytest.fixture(scope="module")
def weights(trained: Path) -> Checkpoint:
    return Checkpoint.load(latest(trained))


def adapted(source: Path | str, *overrides: str) -> Resolved:
    settings = [f"start_from={source}", "run_dir=unused", *overrides]
    return resolve_layers("image", Recipe(), settings, start="read")


def test_a_run_trains_on_from_the_loss_of_its_source_and_resumes_without_it(
    trained: Path, weights: Checkpoint, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, run_dir = tmp_path / "weights.pt", tmp_path / "adapted"
    weights.save(source)
    command = ("--config", "image/adapt", f"start_from={source}", "steps=6", "keep_every=3", "optim.batch_size=8")
    assert launch(run_dir, photos, *command) == 0
    printed = " ".join(capsys.readouterr().err.split())
    for line in (
        "model.size={",
        "data.patch_size=4, as in",
        "data.pixel_mean=[0.5, 0.5, 0.5], as in",
        "loss.distance=l2",
    ):
        assert line in printed
    theirs, own = read_yaml(trained / "config.yaml"), read_yaml(run_dir / "config.yaml")
    assert all(own[name] == theirs[name] for name in ("model", "loss"))
    assert own["stages"] == [{**theirs["stages"][1], "teacher": own["stages"][0]["teacher"]}]
    assert own["stages"][0]["teacher"]["kind"] == "half_life"
    assert own["optim"]["weight_decay"] == 0.04

    fresh = tmp_path / "fresh"
    assert launch(fresh, photos, "steps=3", "optim.peak_lr=1e-4", *SHAPE, BOTH) == 0
    before, first, untrained = fmean(losses(trained)[-6:]), fmean(losses(run_dir)[:3]), fmean(losses(fresh)[:3])
    assert abs(first - before) < 0.2 * abs(untrained - before)

    source.unlink()
    ended = Checkpoint.load(latest(run_dir)).model
    latest(run_dir).write_bytes(kept(run_dir, 3).read_bytes())
    assert launch(run_dir, photos, *command) == 0
    again = Checkpoint.load(latest(run_dir))
    assert again.step == 6
    assert all(torch.equal(again.model[name], value) for name, value in ended.items())


def test_a_run_trains_on_from_the_loss_of_a_source_converted_to_the_published_layout(
    trained: Path, photos: Path, tmp_path: Path
) -> None:
    settings = ["data.image_size=24", "data.patch_size=4", "model.size={width: 64, depth: 2, heads: 1}"]
    settings += ["model.predictor={width: 32, depth: 1, heads: 1}", "model.positions=sincos_published"]
    quick = ("--config", str(trained.parent / "plain.yaml"), "steps=20", "optim.peak_lr=5e-3")
    assert launch(tmp_path / "source", photos, *quick, f"stages.0.{SLOW}".replace(": ", "=", 1), *settings) == 0
    assert convert([str(tmp_path / "source"), str(tmp_path / "source.pth.tar"), "--to", "official"]) == 0
    start = ("--config", "image/adapt", f"start_from={tmp_path / 'source.pth.tar'}", "steps=3", "keep_every=3")
    assert launch(tmp_path / "adapted", photos, *start, "optim.batch_size=8") == 0
    untrained, before = losses(tmp_path / "source")[0], fmean(losses(tmp_path / "source")[-3:])
    assert before < 0.5 * untrained
    assert all(abs(loss - before) < 0.2 * (untrained - before) for loss in losses(tmp_path / "adapted"))


def test_settings_of_the_user_and_of_a_chosen_recipe_win_and_a_default_recipe_gives_way(trained: Path) -> None:
    recipe = {
        "data": {"pixel_mean": [0.1] * 3},
        "model": {"target_join": "each"},
        "stages": {"0": {"teacher": {"start": 0.5}}},
    }
    settings = [f"start_from={trained}", "run_dir=unused", "loss.distance=l1"]
    chosen = resolve_layers("image", Recipe(recipe), settings, start="read").config
    assert (chosen.data.pixel_mean, chosen.loss.distance) == ((0.1,) * 3, "l1")
    assert chosen.stages[0].predict == {"pixels": 1, "latent": 1}
    assert (chosen.stages[0].teacher.start, chosen.stages[0].teacher.end) == (0.5, 0.9)
    default = resolve_layers("image", Recipe(recipe, is_default=True), settings, start="read").config
    assert (default.data.pixel_mean, default.loss.distance) == ((0.5,) * 3, "l1")
    assert (default.stages[0].until, default.stages[0].teacher.start) == (1, 0.9)
    assert default.model == chosen.model.__class__(**{**vars(chosen.model), "target_join": "mean"})


def test_another_resolution_keeps_the_extent_of_positions_and_the_run_remembers_it(
    trained: Path, photos: Path, tmp_path: Path
) -> None:
    still = ("--config", "image/adapt", "steps=1", "optim.peak_lr=1e-12", "optim.final_lr=0", "data.image_size=24")
    assert launch(tmp_path / "larger", photos, f"start_from={trained}", *still) == 0
    larger, there = open_source(tmp_path / "larger"), open_source(trained, ["data.image_size=24"])
    assert larger.config.data.position_grid == (4, 4)
    image = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(larger.encoder()(image), there.encoder()(image), rtol=1e-4, atol=1e-4)
    largest = [open_source(path, ["data.image_size=32"]).encoder() for path in (tmp_path / "larger", trained)]
    views = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(largest[0](views), largest[1](views), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", ["sincos", "rotary", "rotary_vjepa2", "rotary_vjepa2_1"])
def test_released_rotations_go_on_beyond_the_trained_grid_and_a_shared_mask_token_is_the_only_one(
    positions: str,
) -> None:
    grids = [resolve("image", {}, ["data.patch_size=4", f"data.image_size={size}"])[1] for size in (16, 32)]
    predictor = "model.predictor={mask_tokens: 8, share_mask_token: true, width: 24, depth: 1, heads: 2}"
    config = resolve("image", {}, [f"model.positions={positions}", predictor, "data.mask_sets=2"])[0]
    layer = Start("released.pt", Checkpoint(0, 0.0, {}, {}, {}), {}, grids[0]).fitted(config, grids[1], {})
    assert layer.get("data") == (None if "vjepa2" in positions else {"position_grid": [4, 4]})
    assert layer["model"] == {"predictor": {"mask_tokens": 1}}
    with pytest.raises(ConfigError, match=r"mask_tokens: 8, but share_mask_token trains one"):
        check_config(
            replace(config, data=replace(config.data, mask_sets=8)), resolve("image", {}, ["data.mask_sets=8"])[1]
        )


def test_a_missing_network_starts_fresh_only_if_the_user_says_so(
    trained: Path, weights: Checkpoint, photos: Path, tmp_path: Path
) -> None:
    model = {name: value for name, value in weights.model.items() if name.startswith("context_encoder.")}
    replace(weights, model=model).save(tmp_path / "encoder.pt")
    with pytest.raises(ConfigError, match=r"encoder\.pt has no predictor; start_fresh=\[predictor\] starts"):
        adapted(tmp_path / "encoder.pt")
    with pytest.raises(ConfigError, match=r"no predictor; start_fresh=\[projectors,predictor\] starts them"):
        adapted(tmp_path / "encoder.pt", "start_fresh=[projectors]")
    resolved = adapted(tmp_path / "encoder.pt", "start_fresh=[predictor]")
    assert any("has one encoder; context and target encoder start from it" in note for note in resolved.notes)
    assert resolved.config.model.predictor.width == 384  # that of new networks
    plain_recipe = ("--config", str(trained.parent / "plain.yaml"))
    still = ("steps=1", "optim.peak_lr=1e-12", "optim.final_lr=0", *SHAPE, BOTH)
    start = (f"start_from={tmp_path / 'encoder.pt'}", "start_fresh=[predictor]")
    for name, how in (("adapted", start), ("random", ("start_from=",))):
        assert launch(tmp_path / name, photos, *plain_recipe, *how, *still) == 0
    found, random = (Checkpoint.load(latest(tmp_path / name)).model for name in ("adapted", "random"))
    for name, value in found.items():
        network, _, rest = name.partition(".")
        expected = random[name] if network == "predictor" else model[f"context_encoder.{rest}"]
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.size={width: 48, depth: 2, heads: 2}"], r" there, .* now\); settings that differ: model\.size"),
        (["data.position_grid=[2,2,2]"], r"data\.position_grid: has 3 axes, and tokens lie on a grid of 4 x 4"),
    ],
)
def test_settings_that_contradict_the_networks_are_refused_in_one_sentence(
    trained: Path, overrides: list[str], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence) as refused:
        adapted(trained, *overrides)
    assert "\n" not in str(refused.value)


def test_a_start_takes_the_outputs_of_the_kinds_that_it_predicts_and_draws_those_of_new_ones(
    trained: Path, weights: Checkpoint, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source.pt"
    stages = [{"until": 0.4, "predict": {"pixels": 1.0}}, {"predict": {"latent": 1.0}}]
    replace(weights, config={**weights.config, "stages": stages}).save(source)  # rows: 48 of pixels, 24 of latent
    still = ("--config", str(trained.parent / "plain.yaml"), "steps=1", "optim.peak_lr=1e-12", "optim.final_lr=0")
    theirs = weights.model["predictor.project.weight"]
    assert len(theirs) == 48 + 24

    def outputs(start: Path, *more: str) -> torch.Tensor:
        run_dir = tmp_path / start.stem
        assert launch(run_dir, photos, *still, f"start_from={start}", *more) == 0
        found = Checkpoint.load(latest(run_dir)).model
        block = "predictor.blocks.0.mlp.0.weight"
        torch.testing.assert_close(found[block], weights.model[block], rtol=0, atol=1e-6)
        return found["predictor.project.weight"]

    torch.testing.assert_close(outputs(source), theirs[48:], rtol=0, atol=1e-6)
    assert "the predictor's outputs for pixels are left out" in " ".join(capsys.readouterr().err.split())
    pixels = {**weights.config, "stages": [{"predict": {"pixels": 1.0}}]}
    model = {name: one[:48] if "predictor.project." in name else one for name, one in weights.model.items()}
    replace(weights, config=pixels, model=model).save(tmp_path / "pixels.pt")
    found = outputs(tmp_path / "pixels.pt", BOTH)
    torch.testing.assert_close(found[:48], theirs[:48], rtol=0, atol=1e-6)
    assert 0.01 < found[48:].std() < 0.03
    assert "outputs for latent have random weights" in " ".join(capsys.readouterr().err.split())
    views = {**weights.config, "stages": [{"predict": {"views": 1.0}}]}
    model = {name: one[:1] if "predictor.project." in name else one for name, one in weights.model.items()}
    replace(weights, config=views, model=model).save(tmp_path / "views.pt")
    assert any(
        "did not train its pred" in one for one in adapted(tmp_path / "views.pt", "stages.0.predict=latent").notes
    )


def test_a_start_of_another_modality_and_code_named_by_a_file_are_refused(weights: Checkpoint, tmp_path: Path) -> None:
    config = {**weights.config, "modality": "video"}
    replace(weights, config=config).save(tmp_path / "video.pt")
    with pytest.raises(ConfigError, match=r"video\.pt holds networks of the modality video, not image"):
        adapted(tmp_path / "video.pt")
    masking = {"kind": "function", "function": "own_functions:no_such"}
    config = {**weights.config, "data": {**weights.config["data"], "masking": masking}}
    replace(weights, config=config).save(tmp_path / "code.pt")
    with pytest.raises(ConfigError, match=r"names the function own_functions:no_such; set data\.masking to use it"):
        adapted(tmp_path / "code.pt")
    assert adapted(tmp_path / "code.pt", "data.masking.kind=random").config.data.masking.kind == "random"


def test_a_dry_run_says_what_is_taken_over_and_goes_without_a_source_that_only_its_recipe_names(trained: Path) -> None:
    recipe = read_recipe("image/adapt")
    without = resolve_layers("image", Recipe(recipe), [], start="tried")
    assert without.notes[-1] == "nothing is taken over: start_from: no checkpoint at path/to/weights"
    uses: list[tuple[StartUse, str]] = [("read", "steps=5"), ("tried", "start_from=/no/where")]
    for start, setting in uses:
        with pytest.raises(ConfigError, match=r"start_from: no checkpoint at"):
            resolve_layers("image", Recipe(recipe), [setting], start=start)
    found = resolve_layers("image", Recipe(recipe), [f"start_from={trained}"], start="tried")
    assert f"data.image_size=16, as in {trained}" in found.notes
    assert found.modality.grid == (4, 4)
    whole_list = [f"start_from={trained}", "stages=[{predict: latent}]"]
    notes = resolve_layers("image", Recipe(recipe), whole_list, start="tried").notes
    assert [note for note in notes if note.startswith("stages")] == [
        f"stages: the given list replaces the teachers of {trained} and of the recipe too"
    ]


def test_the_default_run_directory_does_not_depend_on_the_source(trained: Path, tmp_path: Path) -> None:
    settings = [f"start_from={trained}/", "model.target_layers=[2]"]
    there = resolve_layers("image", Recipe(), settings, start="read").config
    assert there.run_dir == resolve_layers("image", Recipe(), settings).config.run_dir
    assert there.start_from == str(trained)
    assert plain(there.model)["target_layers"] == [2]
