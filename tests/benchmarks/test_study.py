"""A study makes every trial once, logs it at once, and gives all arms equal searches and budgets."""

import fcntl
import json
import math
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fork_server
import pytest
from pictures import write_class_images

from benchmarks.study import __main__ as study, budget, equal, search
from benchmarks.study.arms import FOLDER, design, read_arm
from benchmarks.study.budget import EXACT, Measurement, step_costs
from benchmarks.study.log import append, read
from benchmarks.study.search import best, ranking
from benchmarks.study.trials import Study, Trial, finish, resolved
from jepa.config import ConfigError

SETTINGS = [
    *("data.image_size=16", "data.patch_size=4", "model.size={width: 24, depth: 2, heads: 2}"),
    *("model.predictor={width: 16, depth: 1, heads: 2}", "evaluate.low_shot_draws=1"),
]


def _fork(command: list[str], *, stdout: Any, env: dict[str, str], **_: Any) -> fork_server.Process:
    output = Path(stdout.name)
    return fork_server.start(*command[2:], stdout=output, stderr=output, OMP_NUM_THREADS=env["OMP_NUM_THREADS"])


@pytest.fixture(scope="module", autouse=True)
def _quick_runs() -> Iterator[None]:
    """Runs start in the fork server, and a cost is that of the first masks alone."""
    forking = SimpleNamespace(Popen=_fork, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.study.trials.subprocess", forking)
        patch.setattr("jepa.cost.flops.DRAWS", 1)
        patch.setattr(equal, "EXACT", Measurement("cost", (2, 40), rounds=2))
        patch.setattr(search, "ROUGH", Measurement("rough cost", (2, 40), rounds=1))
        yield


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of which one channel is brighter, by class."""
    return write_class_images(tmp_path_factory.mktemp("colours"), {"train": 30, "val": 15, "test": 12})


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The masked autoencoder with a search space in which one of four learning rates is far too large."""
    path = tmp_path_factory.mktemp("arms") / "pixels.yaml"
    path.write_text(
        f"base: {FOLDER.parent / 'base.yaml'}\nsearch: {{optim.peak_lr: [1.0e-3, 1.0e+30, 2.0e-3, 3.0e-3]}}\n"
        "stages: [{predict: pixels}]\noptim: {optimizer: adamw, batch_size: 16, warmup: 0}\n"
        "evaluate: {attentive_steps: 2}\n"
    )
    return path


def words(arm: Path, colours: Path, folder: Path) -> list[str]:
    places = ["--log", str(folder / "log.jsonl"), "--work", str(folder / "work")]
    return ["--arms", f"{arm}", "--data", f"tiny={colours}", *places, *SETTINGS]


@pytest.fixture(scope="module")
def searched(arm: Path, colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a search of four trials."""
    folder = tmp_path_factory.mktemp("search")
    assert study.main(["search", "--trials", "4", "--images", "32", "--jobs", "2", *words(arm, colours, folder)]) == 0
    return folder


def _of(trial: dict[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    return next(one for one in records if one["changes"] == trial["changes"])


def test_a_search_goes_on_with_the_best_third_at_three_times_the_images(searched: Path) -> None:
    records = [*read(searched / "log.jsonl").values()]
    assert Counter((one["rung"], one["images"]) for one in records) == {(0, 32): 4, (1, 96): 2}
    failed = [one for one in records if "failed" in one]
    assert [one["changes"] for one in failed] == [{"optim.peak_lr": 1e30}]
    assert "is not finite at step" in failed[0]["failed"]
    ranked = sorted((one for one in records if one["rung"] == 0), key=ranking)
    later = [one for one in records if one["rung"] == 1]
    assert sorted(map(ranking, (_of(one, ranked) for one in later))) == [ranking(one) for one in ranked[2:]]
    for one in later:
        assert one["scores"]["class/linear"]["raw_input"] == 1.0  # colours are easy to distinguish
        assert {"class/knn", "class/low_shot_12", "rankme"} <= one["scores"].keys()
        assert one["split"] == "validation"
        assert one["cpu_seconds"] > 0
        assert str(searched) not in json.dumps(one)


def test_a_study_that_was_killed_repeats_only_the_trial_that_was_not_logged(
    searched: Path, arm: Path, colours: Path
) -> None:
    log = searched / "log.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:-1], lines[-1][:40]]))
    command = ["search", "--trials", "4", "--images", "32", *words(arm, colours, searched)]
    assert study.main(command) == 0
    repeated, scores = log.read_text().splitlines(), json.loads(lines[-1])["scores"]
    assert repeated[:-1] == [*lines[:-1], lines[-1][:40]]
    assert json.loads(repeated[-1])["scores"] == scores
    assert study.main(command) == 0
    assert log.read_text().splitlines() == repeated


def test_budgets_in_minutes_are_cpu_seconds_measured_once(searched: Path, arm: Path, colours: Path) -> None:
    command = ["curves", "--until", "1", *words(arm, colours, searched)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "CPU_SECONDS_A_MINUTE", 0.05)
        assert study.main(command) == 0
        records = [*read(searched / "log.jsonl").values()]
        cost, run = records[-2:]
        assert study.main(command) == 0
    assert [*read(searched / "log.jsonl").values()] == records
    assert (cost["part"], run["part"], run["budget"], run["unit"]) == ("cost", "curve", 1, "minutes")
    assert len(cost["rounds"]) == 2
    assert run["steps"] == max(1, round(0.05 / cost["cpu_seconds_a_step"]))
    assert run["changes"] == max((one for one in records if one.get("rung") == 1), key=ranking)["changes"]
    assert "class/attentive" in run["scores"]


def test_trials_of_a_search_in_minutes_have_the_steps_that_their_costs_pay(
    arm: Path, colours: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.yaml"
    small.write_text(f"base: {arm}\nsearch: {{optim.peak_lr: [1.0e-3], optim.batch_size: [4, 16]}}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "CPU_SECONDS_A_MINUTE", 0.2)
        assert study.main(["search", "--trials", "2", "--minutes", "1", *words(small, colours, tmp_path)]) == 0
    records = [*read(tmp_path / "log.jsonl").values()]
    costs = {one["changes"]["optim.batch_size"]: one for one in records if one["part"] == "rough cost"}
    trials = [one for one in records if one["part"] == "search"]
    assert {one["changes"]["optim.batch_size"] for one in trials} == {4, 16}
    for one in trials:
        cost = costs[one["changes"]["optim.batch_size"]]["cpu_seconds_a_step"]
        assert one["steps"] == max(1, round(0.2 / cost))


def test_arms_are_valid_and_a_step_of_each_has_its_cost(colours: Path, tmp_path: Path) -> None:
    arms = [read_arm(path.stem) for path in sorted(FOLDER.glob("*.yaml"))]
    place = ("data.source=folder", f"data.root={colours}")
    grid = ("data.image_size=16", "data.patch_size=2")
    tiny = Study("tiny", place, (*grid, SETTINGS[2]), tmp_path / "log.jsonl", tmp_path, jobs=1)
    names, points = [arm.name for arm in arms], [(arm, {"optim.batch_size": 8}) for arm in arms]
    costs = dict(zip(names, step_costs("flops", tiny, points, EXACT), strict=True))
    assert costs["latent"] > costs["both"] > costs["pixels_vicreg"] > costs["masked_autoencoder"]
    ablations = [read_arm(str(path)) for path in sorted((FOLDER.parents[1] / "ablations").glob("*.yaml"))]
    for arm in (*arms, *ablations):
        assert len(design(arm.search, 9)) == min(9, math.prod(map(len, arm.search.values()))) or not arm.search
        for changes in design(arm.search, 9) or [{}]:
            assert resolved(tiny, arm, changes, 5)[0].steps == 5


def test_trials_of_a_search_differ_and_hold_every_value_equally_often() -> None:
    search = {"data.masking.ratio": (0.6, 0.75, 0.85), "optim.peak_lr": (1, 2, 4), "optim.batch_size": (16, 32, 64)}
    points = design(search, 9)
    assert len({json.dumps(point) for point in points}) == 9
    for path, values in search.items():
        assert Counter(point[path] for point in points) == dict.fromkeys(values, 3)
    assert len(design(search, 100)) == 27


def test_a_run_that_another_study_makes_is_waited_for(colours: Path, tmp_path: Path) -> None:
    tiny = Study("tiny", (), (), tmp_path / "log.jsonl", tmp_path / "work", jobs=1)
    trial = Trial(tiny, "search", read_arm("latent"), {}, 1, 0, "validation", {})
    tiny.work.mkdir()
    with trial.run_dir.with_name(f"{trial.run_dir.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        records = finish([trial], tiny)
        append(tiny.log, {"key": trial.key, "by": "the other"})
        assert [one["by"] for one in records] == ["the other"]
    assert not trial.run_dir.with_suffix(".log").exists()


def test_a_failed_trial_is_worse_than_any_other() -> None:
    assert ranking({"failed": "the loss is not finite"}) == -math.inf


def test_a_process_that_fails_ends_the_study_with_its_last_output(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(f"base: {FOLDER.parent / 'base.yaml'}\nstart_from: {tmp_path / 'nothing'}\nsearch: {{seed: [1]}}\n")
    assert study.main(["search", "--trials", "1", "--images", "32", *words(path, colours, tmp_path)]) == 1
    assert "error: broken with {'seed': 1} ended with status 1; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("finals --arms latent --data tiny={colours}", "one of the arguments --minutes --flops --images is required"),
        ("search --arms latent --data tiny={colours} --images 0", "--images: a positive number is needed, not '0'"),
        ("search --arms latent --data tiny --images 9", "--data: NAME=FOLDER with a folder of images is needed, or"),
        ("search --arms latint --data scenes --images 9", "--arms: no arm 'latint'; arms: both, ijepa, latent,"),
        ("search --arms latent --data scenes --images 9 seed=4", "seed is not a setting of a study: it is set by"),
    ],
)
def test_invalid_studies_are_refused_in_one_sentence(
    options: str, sentence: str, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        study.main(options.format(colours=colours).split())
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_finals_need_a_search(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = words(FOLDER / "latent.yaml", colours, tmp_path)
    assert study.main(["finals", "--images", "32", *command]) == 1
    assert "has no trial of latent as its file now is; run the search first" in capsys.readouterr().err


def test_settings_may_come_from_a_search_on_other_data(searched: Path, arm: Path, tmp_path: Path) -> None:
    other, one = Study("other", (), ("data.image_size=16",), tmp_path / "log.jsonl", tmp_path, 1), read_arm(str(arm))
    trials = [trial for trial in read(searched / "log.jsonl").values() if trial["part"] == "search"]
    largest = [trial for trial in trials if trial["budget"] == max(trial["budget"] for trial in trials)]
    found = best(other, one, searched / "log.jsonl")
    assert found == max(largest, key=ranking)["changes"] != {}
    with pytest.raises(ConfigError, match="has no trial"):
        best(other, one)


def test_a_report_shows_means_with_errors_and_draws_small_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    monkeypatch.setattr(study, "IMAGES", tmp_path)
    floors = {"random_init": 0.25, "raw_input": 0.35}
    facts = {"changes": {}, "git": "abc", "machine": "a CPU", "flops": 1e12, "cpu_seconds": 90.0, "split": "validation"}
    for arm, first in (("latent", 0.4), ("masked_autoencoder", 0.5)):
        for minutes in (1, 10):
            for seed in range(2):
                score = {"jepa": first + minutes / 100 + seed / 50, **floors}
                rows = {"class/linear": score, "class/knn": score, "rankme": {"jepa": 30.0}}
                run = {"part": "curve", "arm": arm, "seed": seed, "budget": minutes, "unit": "minutes", "scores": rows}
                if (arm, seed) == ("masked_autoencoder", 1):
                    run |= {"precision": "fp32", "cpu_seconds": 200.0}
                append(tmp_path / "study_tiny.jsonl", {**facts, **run, "key": f"{arm}{minutes}{seed}", "images": 900})
    assert study.main(["report", "tiny"]) == 0
    page = (tmp_path / "study_tiny.md").read_text()
    assert "| latent | 0.420 ± 0.010 | 0.420 ± 0.010 | 30.0 ± 0.0 | 900 | 1e+12 | 90 | 2 |" in page
    assert "| 900 | 1e+12 | 90 in bf16, 200 in fp32 | 2 |" in page
    assert "on a CPU in bf16, a CPU in fp32;" in page
    assert "| untrained | 0.250 ± 0.000 | 0.250 ± 0.000 |" in page
    assert "**Curves: 10 minutes of two cores, validation split**" in page
    figure = tmp_path / "study_tiny.svg"
    drawn = figure.read_bytes()
    assert len(drawn) < 100_000
    assert b"masked autoencoder" in drawn
    assert study.main(["report", "tiny"]) == 0
    assert figure.read_bytes() == drawn
    other = (tmp_path / "study_tiny.jsonl").rename(tmp_path / "other.jsonl")
    (tmp_path / "study_tiny.md").unlink()
    assert study.main(["report", "tiny", "--log", str(other)]) == 0
    page = (tmp_path / "study_tiny.md").read_text()
    assert page.startswith(f"`python -m benchmarks.study report tiny --log {other}`\n")
    assert "every trial: other.jsonl" in page
    assert study.main(["report", "tiny", "tinier", "--log", str(other)]) == 1
