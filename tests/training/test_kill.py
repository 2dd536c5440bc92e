"""Killed runs: the same command again ends with the weights and metrics of an uninterrupted run."""

import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import fork_server
import pytest
from runs import assert_same_weights

from jepa.checkpoint import Checkpoint, latest
from jepa.checkpoint.file import kept, read_step
from jepa.training.log import read_metrics

STEPS = 24
STAGES = "stages=[{until: 0.25, predict: pixels}, {predict: latent, teacher: {kind: snapshot, refreshes: 4}}]"
SMALLEST = [
    *("model.size={width: 16, depth: 1, heads: 2}", "model.predictor={width: 16, depth: 1, heads: 2}", "steps=2"),
    *(
        "optim.batch_size=4",
        "log_every=1",
        "checkpoint_every=1",
        "keep_every=2",
        "compute.workers=0",
        "compute.precision=fp32",
    ),
    *("evaluate.enabled=false", "evaluate.report=false"),
]


def smallest(run_dir: Path) -> list[str]:
    """Arguments of a run of two steps, with a checkpoint after each."""
    return ["--modality", "tiny:Noise", "--run-dir", str(run_dir), *SMALLEST]


def crash(run_dir: Path, crash_at: str = "") -> list[str]:
    """Run until just before, or into the middle of, a file operation of a thread -> all operations until then."""
    done = fork_server.run("crash_points", *smallest(run_dir), CRASH_FOLDER=str(run_dir), CRASH_AT=crash_at)
    assert done.returncode == (-signal.SIGKILL if crash_at else 0), done.stderr
    return done.stdout.splitlines()


def of_thread(thread: str, operations: list[str]) -> list[str]:
    return [name for name in operations if name.startswith(thread)]


def crash_points(operations: list[str]) -> list[tuple[str, int]]:
    """Thread and number of all its operations; of the many writes to one file, the first, the middle and the last."""
    points: list[tuple[str, int]] = []
    for thread in ("main", "checkpoint"):
        numbered = enumerate(of_thread(thread, operations), start=1)
        for _, group in groupby(numbered, key=lambda one: one[1]):
            numbers = [number for number, _ in group]
            points += [(thread, number) for number in sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]})]
    return points


class Resumes:
    """Checks that runs resume after a crash; once for each state of their files, as others resume in the same way."""

    def __init__(self, whole: Path) -> None:
        self.whole, self.seen = whole, set[tuple[int, frozenset[tuple[str, int]]]]()

    def check(self, run_dir: Path, step: int) -> None:
        """The checkpoint is that of `step`, whole, or there is none; the same command ends as the whole run did."""
        assert (Checkpoint.load(latest(run_dir)).step if latest(run_dir).exists() else 0) == step
        sizes = {(str(path.relative_to(run_dir)), path.stat().st_size) for path in files(run_dir)}
        if (step, frozenset(sizes)) in self.seen:
            return
        self.seen.add((step, frozenset(sizes)))
        again = fork_server.run("jepa.launch", *smallest(run_dir))
        assert again.returncode == 0, again.stderr
        assert (f"resumed from step {step}" if step else "fresh run") in again.stderr or step == 2
        assert_same_weights(run_dir, self.whole)
        assert [line["step"] for line in read_metrics(run_dir)] == [1, 2]
        left = {path.name for path in files(run_dir)}
        assert left == {"config.yaml", "data.json", "metrics.jsonl", "checkpoints", "latest.pt", "step_2.pt"}
        assert read_step(kept(run_dir, 2)) == 2


def files(run_dir: Path) -> list[Path]:
    return [path for path in run_dir.rglob("*") if "tensorboard" not in path.parts]


def test_a_crash_at_any_file_operation_of_a_run_leaves_a_whole_checkpoint_or_none(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    operations = crash(whole)
    publish = "checkpoint replace /checkpoints/latest.pt.partial"  # while the main thread trains
    assert operations.count(publish) == 2
    resumes = Resumes(whole)
    for thread, number in crash_points(operations):
        run_dir = tmp_path / f"{thread}{number}"
        before = crash(run_dir, f"{thread}:{number}")
        assert of_thread(thread, before) == of_thread(thread, operations)[:number]
        resumes.check(run_dir, before[:-1].count(publish))
        shutil.rmtree(run_dir, ignore_errors=True)


def test_a_crash_at_any_file_operation_of_a_resumed_run_loses_nothing(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    writes = of_thread("checkpoint", crash(whole))
    opened = "checkpoint open /checkpoints/latest.pt.partial"
    second_save = [number for number, name in enumerate(writes, 1) if name == opened][1]
    crash(stopped, f"checkpoint:{second_save}")
    assert [line["step"] for line in read_metrics(stopped)] == [1, 2]

    def copy(name: str) -> Path:
        shutil.copytree(stopped, tmp_path / name)
        return tmp_path / name

    resumed = crash(copy("resumed"))
    before_training = resumed[: resumed.index("main open /metrics.jsonl")]
    assert {"main replace /config.partial", "main replace /metrics.jsonl.partial"} <= set(before_training)
    resumes = Resumes(whole)
    for thread, number in crash_points(before_training):
        run_dir = copy(f"{thread}{number}")
        crash(run_dir, f"{thread}:{number}")
        resumes.check(run_dir, 1)


def arguments(photos: Path, run_dir: Path, workers: int) -> list[str]:
    settings = f"""
        data.source=folder data.root={photos} data.image_size=32 data.patch_size=4
        model.size.width=96 model.size.depth=3 model.size.heads=2 model.predictor.width=32 model.predictor.heads=2
        optim.batch_size=8 steps={STEPS} log_every=1 checkpoint_every=1 compute.workers={workers}
        evaluate.enabled=false evaluate.report=false
    """
    return ["jepa.launch", "--modality", "image", "--run-dir", str(run_dir), *settings.split(), STAGES]


def kill_once(photos: Path, run_dir: Path, chance: random.Random, in_write: bool) -> None:
    """Kill a run at a random moment of its training, or while it writes a checkpoint."""
    process = fork_server.start(*arguments(photos, run_dir, workers=0))
    partial = run_dir / "checkpoints" / "latest.pt.partial"
    after_step = chance.randrange(STEPS - 4)
    while process.poll() is None:
        lines = read_metrics(run_dir)
        if lines and lines[-1]["step"] > after_step and (partial.exists() if in_write else True):
            time.sleep(0.0 if in_write else chance.uniform(0, 0.05))
            break
        time.sleep(0.002)
    process.kill()
    process.wait()


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_runs_killed_at_random_moments_end_with_the_weights_of_an_uninterrupted_one(
    kills: int, photos: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    assert fork_server.run(*arguments(photos, whole, workers=2)).returncode == 0

    def interrupted(index: int) -> tuple[int, bool]:
        run_dir = tmp_path / f"killed{index}"
        kill_once(photos, run_dir, random.Random(index), in_write=index % 2 == 1)
        killed_at = Checkpoint.load(latest(run_dir)).step if latest(run_dir).exists() else 0
        in_write = (run_dir / "checkpoints" / "latest.pt.partial").exists()
        again = fork_server.run(*arguments(photos, run_dir, workers=index % 3))
        assert again.returncode == 0, again.stderr
        assert f"resumed from step {killed_at}" in again.stderr if killed_at else "fresh run" in again.stderr
        return killed_at, in_write

    with ThreadPoolExecutor(2) as pool:
        moments = list(pool.map(interrupted, range(kills)))
    assert len({step for step, _ in moments}) > kills // 4, moments
    if kills == 20:
        assert any(in_write for _, in_write in moments), "no kill fell into the write of a checkpoint"
    for index in range(kills):
        assert_same_weights(tmp_path / f"killed{index}", whole)
        assert [line["step"] for line in read_metrics(tmp_path / f"killed{index}")] == list(range(1, STEPS + 1))


def test_a_run_stopped_by_a_signal_saves_its_step_and_resumes_there(photos: Path, tmp_path: Path) -> None:
    process = fork_server.start(*arguments(photos, tmp_path / "run", workers=1))
    while not read_metrics(tmp_path / "run"):
        time.sleep(0.01)
    process.terminate()
    stopped = process.finish()
    assert stopped.returncode == 130
    step = Checkpoint.load(latest(tmp_path / "run")).step
    assert f"stopped by SIGTERM after step {step}" in stopped.stderr
    again = fork_server.run(*arguments(photos, tmp_path / "run", workers=1))
    assert again.returncode == 0
    assert f"resumed from step {step}" in again.stderr
