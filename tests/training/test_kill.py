"""Real runs, really killed: what is started again with the same command ends as if nothing had happened."""

import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from jepa.checkpoint import Checkpoint, latest
from jepa.training.log import read_metrics

STEPS = 40
KILLS = 20


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small pictures of noise, without labels."""
    folder = tmp_path_factory.mktemp("photos")
    noise = torch.randint(256, (40, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels.numpy()).save(folder / f"{index}.png")
    return folder


def command(photos: Path, run_dir: Path, workers: int) -> list[str]:
    settings = f"""
        data.source=folder data.root={photos} data.image_size=32 data.patch_size=4
        model.size.width=96 model.size.depth=3 model.size.heads=2 model.predictor.width=32 model.predictor.heads=2
        optim.batch_size=8 steps={STEPS} log_every=1 checkpoint_every=1 evaluate.enabled=false compute.workers={workers}
    """
    return [sys.executable, "-m", "jepa.launch", "--modality", "image", "--run-dir", str(run_dir), *settings.split()]


def start(photos: Path, run_dir: Path, workers: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(photos, run_dir, workers), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill_once(photos: Path, run_dir: Path, chance: random.Random, in_write: bool) -> None:
    """Kill a run at a random moment of its training, or while a checkpoint is being written."""
    process = start(photos, run_dir, workers=0)
    partial = run_dir / "checkpoints" / "latest.pt.partial"
    after_step = chance.randrange(STEPS - 4)
    while process.poll() is None:
        lines = read_metrics(run_dir)
        if lines and lines[-1]["step"] > after_step and (partial.exists() if in_write else True):
            time.sleep(0.0 if in_write else chance.uniform(0, 0.05))
            break
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_twenty_runs_killed_at_random_moments_end_with_the_weights_of_an_uninterrupted_one(
    photos: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    subprocess.run(command(photos, whole, workers=2), capture_output=True, check=True)
    expected = Checkpoint.load(latest(whole))

    def interrupted(index: int) -> tuple[int, bool]:
        run_dir = tmp_path / f"killed{index}"
        kill_once(photos, run_dir, random.Random(index), in_write=index % 2 == 1)
        killed_at = Checkpoint.load(latest(run_dir)).step if latest(run_dir).exists() else 0
        in_write = (run_dir / "checkpoints" / "latest.pt.partial").exists()
        again = subprocess.run(command(photos, run_dir, workers=index % 3), capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stderr
        assert f"resumed from step {killed_at}" in again.stderr if killed_at else "fresh run" in again.stderr
        return killed_at, in_write

    with ThreadPoolExecutor(2) as pool:
        moments = list(pool.map(interrupted, range(KILLS)))
    assert len({step for step, _ in moments}) > KILLS // 4, moments
    assert any(in_write for _, in_write in moments), "no kill fell into a checkpoint's write"
    for index in range(KILLS):
        ended = Checkpoint.load(latest(tmp_path / f"killed{index}"))
        assert ended.step == STEPS
        assert all(torch.equal(ended.model[name], expected.model[name]) for name in expected.model)
        lines = read_metrics(tmp_path / f"killed{index}")
        assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
        assert [line["loss"] for line in lines] == [line["loss"] for line in read_metrics(whole)]


def test_a_run_that_is_asked_to_stop_saves_its_step_and_goes_on_from_there(photos: Path, tmp_path: Path) -> None:
    process = start(photos, tmp_path / "run", workers=1)
    while not read_metrics(tmp_path / "run"):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 130
    step = Checkpoint.load(latest(tmp_path / "run")).step
    assert f"stopped by SIGTERM after step {step}" in output
    again = subprocess.run(command(photos, tmp_path / "run", 1), capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert f"resumed from step {step}" in again.stderr
