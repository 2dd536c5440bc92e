"""`jepa launch`: mistakes end in one sentence and status 1, and nothing is overwritten."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_runs import small
from tiny import Noise
from torch import nn

import jepa.train
from jepa.checkpoint import Checkpoint, CheckpointError, latest
from jepa.checkpoint.file import kept
from jepa.cluster.sweep import is_finished
from jepa.config import ConfigError, plain, read_yaml, to_yaml
from jepa.config.recipes import read_recipe
from jepa.data import read_bad_files
from jepa.distributed import World
from jepa.errors import INTERRUPTED
from jepa.launch import main, resolve
from jepa.loss import prediction_loss
from jepa.masking import RandomMaskConfig
from jepa.probe.protocol import EvaluateConfig
from jepa.training.log import read_metrics
from jepa.training.networks import build_model
from modalities.image import Image

TINY = [
    *("data.source=folder", "data.image_size=32", "data.patch_size=4"),
    *("data.masking.kind=block", "data.masking.targets=2"),
    *("model.size.width=48", "model.size.depth=1", "model.size.heads=2"),
    *("model.predictor.width=32", "model.predictor.depth=1", "model.predictor.heads=2", "optim.batch_size=8"),
    *("steps=3", "log_every=1", "compute.workers=0", "evaluate.enabled=false"),
    "evaluate.report=false",
]


def run(run_dir: Path, photos: Path, *more: str) -> int:
    return main(["--modality", "image", "--run-dir", str(run_dir), *TINY, f"data.root={photos}", *more])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run."""
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    assert run(run_dir, photos) == 0
    return run_dir


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["optim.peek_lr=1"], "unknown key 'optim.peek_lr', did you mean 'optim.peak_lr'?"),
        (["data.imagesize=32"], "unknown key 'data.imagesize', did you mean 'data.image_size'?"),
        (["steps=many"], "steps: should be a valid integer, not 'many'"),
        (["steps"], "'steps' is not of the form section.key=value"),
        (["seed=9223372036854775808"], "seed: should be less than 9223372036854775808"),
        (["run_dir=elsewhere"], "run_dir: name the directory of the run, or of several runs, once, by --run-dir"),
        (["data.value_range=[0,.inf]"], "data.value_range.1: should be a finite number"),
        (["data.masking.target_scale=[0.5,0.6]"], "data: 2 target blocks of up to 60% can leave a context of"),
        (["data.patch_size=16", "data.masking.targets=9"], "data: 9 "),
        (["data.patch_size=5"], "data: patch_size 5 does not divide image_size 32 x 32"),
        (["data.crop_scale=[1.0,0.3]"], "data.crop_scale: a range goes from low to high, not from 1.0 to 0.3"),
        (["data.root=/no/such/folder"], "data: data root /no/such/folder does not exist"),
        (["data.root={empty}"], "data: no images below {empty}; looked for files ending in"),
        (
            ["data.root={unreadable}"],
            "samples in a row cannot be read, more than data.max_bad_fraction allows; the last one is {unreadable}/",
        ),
        (["data.root="], "data: source 'folder' needs data.root, the folder or file that holds it"),
        (["optim.batch_size=1"], "optim.batch_size: "),
        (["compute.device=cuda"], "compute.device: cuda is set, but torch sees no CUDA device"),
        (["--config", "no_such_recipe"], "--config no_such_recipe is neither a file nor a recipe; recipes: "),
        (["--modality", "sonar"], "no modality 'sonar'; installed: image"),
        (["--run-dir", "{empty}/../file"], "{empty}/../file cannot be created or locked: File exists"),
    ],
)
def test_mistakes_end_in_one_sentence_and_leave_no_run_behind(
    settings: list[str],
    sentence: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "unreadable").mkdir()
    for index in range(8):
        (tmp_path / "unreadable" / f"{index}.png").write_bytes(b"no image")
    places = {"empty": str(tmp_path / "empty"), "unreadable": str(tmp_path / "unreadable")}

    def filled(text: str) -> str:
        for name, place in places.items():
            text = text.replace(f"{{{name}}}", place)
        return text

    status = run(tmp_path / "run", photos, *map(filled, settings))
    printed = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("no effect here: ")]
    assert status == 1
    assert printed[-1].startswith("error: ")
    assert filled(sentence) in printed[-1]
    assert not any("Traceback" in line for line in printed)
    if "unreadable" not in settings[0]:  # that is found out while training
        assert len(printed) == 1
        assert not (tmp_path / "run").exists()


def test_a_run_directory_with_another_config_is_refused_and_not_touched(
    finished: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(finished)
    assert run(finished, photos, "optim.peak_lr=0.5", "steps=9") == 1
    printed = capsys.readouterr().err
    assert printed.startswith(
        f"error: {finished} holds a run with another config: steps (3 there, 9 now); optim.peak_lr ("
    )
    assert "run_dir" in printed.rpartition("(")[2]  # what to do
    assert f"to train further, start a run with a new run_dir and start_from={finished}" in printed
    assert contents(finished) == before


def test_a_run_directory_of_another_modality_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--modality", "tiny:Noise", "--run-dir", str(finished)]) == 1
    assert "holds a run with another config: modality (image there, tiny:Noise now)" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_resumes_with_settings_since_added_and_removed(
    finished: Path, photos: Path, tmp_path: Path
) -> None:
    run_dir = shutil.copytree(finished, tmp_path / "run")
    config = read_yaml(run_dir / "config.yaml")
    earlier = {**config, "optim": {**config["optim"], "fused": True}, "run_dir": str(run_dir)}
    del earlier["loss"]["contrast_weight"]
    (run_dir / "config.yaml").write_text(to_yaml(earlier))
    assert run(run_dir, photos) == 0
    assert read_yaml(run_dir / "config.yaml") == {**read_yaml(finished / "config.yaml"), "run_dir": str(run_dir)}


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short", b"\x80\x02}q\x00."])
def test_a_corrupt_checkpoint_is_refused_and_not_overwritten(
    content: bytes, finished: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    latest(run_dir).parent.mkdir(parents=True)
    (run_dir / "config.yaml").write_text((finished / "config.yaml").read_text().replace(str(finished), str(run_dir)))
    latest(run_dir).write_bytes(content)
    before = contents(run_dir)
    assert run(run_dir, photos) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {latest(run_dir)} is not a ")
    assert printed.count("\n") == 1
    assert contents(run_dir) == before


@pytest.mark.parametrize("what", ["gradient", "loss"])
def test_what_is_not_finite_reaches_no_weight_and_stops_the_run_at_the_next_step(
    what: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backward, seen = jepa.train.backward, []

    def failing(config: Any, step: int, forward: Any, batch: Any) -> Any:
        trained = [weight for weight in forward.parameters() if weight.requires_grad]
        seen.append([weight.detach().clone() for weight in trained])
        losses = backward(config, step, forward, batch)
        if step == 1 and what == "gradient":
            trained[0].grad.fill_(math.inf)
        return losses

    def infinite(*arguments: Any) -> Any:  # with a finite gradient
        return prediction_loss(*arguments) + (math.inf if len(seen) == 2 and what != "gradient" else 0)

    monkeypatch.setattr("jepa.train.backward", failing)
    monkeypatch.setattr("jepa.train.prediction_loss", infinite)
    run_dir, settings = tmp_path / "run", ["steps=6", "log_every=6", "optim.warmup=0"]
    assert run(run_dir, photos, *settings, "checkpoint_every=6") == 1
    first, before, after = seen  # the host looks at step 1 once step 2 has started
    assert not any(torch.equal(one, other) for one, other in zip(first, before, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert not latest(run_dir).exists()
    seen.clear()
    assert run(run_dir, photos, *settings, "checkpoint_every=1") == 1
    assert Checkpoint.load(latest(run_dir)).step == 1
    message = capsys.readouterr().err.splitlines()[-1]
    for part in ("error: ", f"the {what} is not finite at step 1", str(latest(run_dir)), "optim.peak_lr"):
        assert part in message


def test_a_checkpoint_truncated_anywhere_is_detected(finished: Path, tmp_path: Path) -> None:
    whole = latest(finished).read_bytes()
    for size in range(0, len(whole), len(whole) // 20):
        (tmp_path / "cut.pt").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.pt is not a readable checkpoint: ."):
            Checkpoint.load(tmp_path / "cut.pt")


def test_a_broken_checkpoint_of_a_run_names_those_that_can_take_its_place(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = Path(shutil.copytree(finished, tmp_path / "run"))
    whole, other = latest(run_dir).read_bytes(), kept(run_dir, Checkpoint.load(latest(run_dir)).step)
    command = ["--modality", "image", "--config", str(finished / "config.yaml"), "--run-dir", str(run_dir)]
    latest(run_dir).write_bytes(whole[:-3000])
    assert main(command) == 1
    assert capsys.readouterr().err.endswith("remove it to start from the first step\n")
    other.write_bytes(whole)
    assert main(command) == 1
    means = f"To resume from another one, remove it and copy one of these to its name: {other.name}\n"
    why = f"{latest(run_dir)} is not a readable checkpoint: it is truncated or damaged"
    assert capsys.readouterr().err.endswith(f"{why}. {means}")
    latest(run_dir).unlink()
    shutil.copy(other, latest(run_dir))
    assert main(command) == 0


def test_the_config_of_a_run_of_another_modality_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(finished / "config.yaml")
    assert main(["--modality", "video", "--config", recipe]) == 1
    assert capsys.readouterr().err == f"error: {recipe} is the config of a run with --modality image, not video\n"


def test_the_written_config_repeats_the_run_exactly(finished: Path, photos: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    recipe = str(finished / "config.yaml")
    assert main(["--modality", "image", "--config", recipe, "--run-dir", str(again)]) == 0
    first, second = read_metrics(finished), read_metrics(again)
    assert [line["loss"] for line in first] == [line["loss"] for line in second]
    weights = Checkpoint.load(latest(finished)).model, Checkpoint.load(latest(again)).model
    assert all((weights[1][name] == value).all() for name, value in weights[0].items())
    configs = read_yaml(finished / "config.yaml"), read_yaml(again / "config.yaml")
    assert configs[0] == {**configs[1], "run_dir": str(finished)}


def test_repeating_the_command_of_a_finished_run_trains_nothing(
    finished: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(finished)
    assert run(finished, photos, "log_every=2", "compute.workers=1") == 0  # how to run it may change
    said = capsys.readouterr().err
    assert f"{finished} is finished: all 3 steps are done, so nothing was trained" in said
    after = contents(finished)
    assert all(after[name] == before[name] for name in ("metrics.jsonl", "checkpoints/latest.pt"))


def test_without_evaluation_and_report_the_last_checkpoint_finishes_a_run(photos: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert run(run_dir, photos) == 0
    assert not (run_dir / "report.html").exists()
    assert is_finished(run_dir)
    latest(run_dir).unlink()
    assert not is_finished(run_dir)
    assert run(run_dir, photos, "evaluate.report=true") == 0  # a resumed run may ask for the report
    assert (run_dir / "report.html").exists()
    assert is_finished(run_dir)


def test_a_run_whose_last_evaluation_did_not_end_is_not_finished(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("evaluate.enabled=true", "evaluate.report=false")
    assert run(tmp_path, photos, *settings) == 0
    assert is_finished(tmp_path)

    def killed(config: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jepa.evaluate.run.evaluate_as", killed)
        assert run(tmp_path, photos, *settings, "evaluate.test_samples=2") == INTERRUPTED
    assert not is_finished(tmp_path)  # results.json is of the former evaluation
    assert run(tmp_path, photos, *settings, "evaluate.test_samples=2") == 0
    assert is_finished(tmp_path)


def test_a_finished_run_is_evaluated_by_the_settings_of_the_last_launch(photos: Path, tmp_path: Path) -> None:
    def samples(*settings: str) -> int:
        assert run(tmp_path / "run", photos, "evaluate.enabled=true", *settings) == 0
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        found: int = results["protocol"]["test_samples"]
        return found

    assert samples() == EvaluateConfig().test_samples
    assert samples("evaluate.test_samples=2") == 2


def test_without_a_run_directory_the_config_names_it() -> None:
    def named(*overrides: str) -> str:
        return str(resolve("image", {}, overrides)[0].run_dir)

    assert named("steps=5", "seed=1") == named("seed=1", "steps=5")
    assert named("steps=5").startswith("runs/image-")
    assert named("steps=5") != named("steps=6")
    assert named("run_dir=elsewhere") == "elsewhere"


def test_what_a_user_removed_from_a_run_directory_is_found_in_its_checkpoint_or_left_out(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert run(run_dir, photos, "keep_every=1") == 0
    (run_dir / "config.yaml").unlink()
    assert run(run_dir, photos, "optim.peak_lr=0.5") == 1
    assert "holds a run with another config: optim.peak_lr (" in capsys.readouterr().err
    lines = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "metrics.jsonl").write_text("".join([lines[0], "\0\0\n", *lines[1:]]))
    assert [line["step"] for line in read_metrics(run_dir)] == [1, 2, 3]
    assert "line 2 of " in capsys.readouterr().err
    checkpoints = run_dir / "checkpoints"
    with pytest.raises(ConfigError, match="which: 'encoder' is no encoder"):
        jepa.load(run_dir, "encoder")  # type: ignore[arg-type]
    (checkpoints / "latest.pt").write_bytes((checkpoints / "step_1.pt").read_bytes())  # in place, as `cp` does
    with pytest.raises(CheckpointError, match=r"step_3.pt holds step 1: another checkpoint was copied over it"):
        jepa.load(run_dir, step=3)


@pytest.mark.parametrize("seeds", ["0", "-1", "two"])
def test_a_number_of_seeds_is_at_least_one(seeds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--modality", "image", f"--seeds={seeds}"])
    assert f"'{seeds}' is not a whole number from 1 on" in capsys.readouterr().err


def test_the_order_of_overrides_does_not_matter_if_one_changes_a_kind() -> None:
    for overrides in (
        ["data.masking.kind=random", "data.masking.ratio=.5"],
        ["data.masking.ratio=.5", "data.masking.kind=random"],
    ):
        config, _ = resolve("image", {"data": {"masking": {"kind": "tube", "blocks": 2}}}, overrides)
        assert config.data.masking == RandomMaskConfig(ratio=0.5)


def test_an_embedding_that_cannot_be_called_as_encoders_call_it_is_one_sentence() -> None:
    class Whole(Noise):
        def embedding(self, dim: int) -> nn.Module:
            return nn.Linear(1, dim)

    config, modality = small()
    with pytest.raises(ConfigError, match=r"modality noise: embedding is called as embedding\(inputs, keep\)"):
        build_model(config, Whole(modality.config), False)


def test_a_dry_run_prints_the_config_and_its_cost_and_writes_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepa.cost.flops.DRAWS", 1)
    assert run(tmp_path / "run", photos, "--dry-run") == 0
    printed = capsys.readouterr().out
    config, _, cost = printed.partition("parameters ")
    expected = resolve("image", read_recipe("image"), [*TINY, f"data.root={photos}", f"run_dir={tmp_path / 'run'}"])
    assert yaml.safe_load(config) == plain(expected[0])
    assert "on a grid of 8 x 8" in cost
    assert not (tmp_path / "run").exists()


def test_the_real_command_prints_its_error_and_exits_with_status_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jepa", "launch", "--modality", "image", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run([*command, "optim.peek_lr=1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: unknown key 'optim.peek_lr', did you mean 'optim.peak_lr'? 'optim' takes: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_names_that_are_not_utf8_and_odd_ones_train_resume_and_report(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "[red] caf\udce9\n\x1b[31m:fire:"
    root, run_dir = tmp_path / f"photos {odd}", tmp_path / f"run {odd}"
    shutil.copytree(photos, root)
    (root / "00.png").rename(root / f"{odd}.png")
    (root / f"{odd}.png").write_bytes(b"no image")
    settings = (f"data.root={root}", "data.max_bad_fraction=0.2", "evaluate.report=true")
    for _ in range(2):
        assert run(run_dir, photos, *settings) == 0
    said = capsys.readouterr().err
    assert said.endswith(f"report: {tmp_path}/run [red] caf\\xe9\\n\\x1b[31m:fire:/report.html\n")
    assert "\x1b" not in (run_dir / "report.html").read_text()
    assert read_bad_files(run_dir / "bad_files.txt")[0][0] == str(root / f"{odd}.png")
    assert read_yaml(run_dir / "config.yaml")["data"]["root"] == str(root)
    assert Checkpoint.load(latest(run_dir), mmap=True).config["data"]["root"] == str(root)


def test_every_process_opens_the_splits_of_the_evaluation_so_that_none_waits_for_the_first(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    dataset = Image.dataset
    monkeypatch.setattr(Image, "dataset", lambda self, split: opened.append(split) or dataset(self, split))
    monkeypatch.setattr("jepa.launch.join", lambda _: World(1, 1, torch.device("cpu")))  # not the first process
    monkeypatch.setattr("jepa.launch.train", lambda *_: False)
    for settings, expected in (
        (["evaluate.enabled=true"], ["train", "validation", "test"]),
        (["evaluate.enabled=true", "evaluate.scored_split=validation"], ["train", "validation"]),
        (["evaluate.enabled=false"], ["train"]),
    ):
        opened.clear()
        assert run(tmp_path / "run", photos, *settings) == INTERRUPTED
        assert opened == expected
