"""Two real processes that hold half of the weights each: they learn what one would, and anybody goes on from there."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jepa import launch
from jepa.checkpoint import Checkpoint, latest
from jepa.run_log import read_metrics

SETTINGS = [
    "data.source=folder",
    "data.image_size=32",
    "data.patch_size=4",
    "data.views=2",
    "data.masking.kind=block",
    "data.masking.targets=2",
    "curriculum.latent_from=0.5",
    "model.size.width=48",
    "model.size.depth=2",
    "model.size.heads=2",
    "model.predictor.width=32",
    "model.predictor.heads=2",
    "model.predictor.depth=2",
    "model.projector=16",
    "optim.batch_size=24",
    "optim.peak_lr=1e-3",
    "optim.warmup=0",
    "steps=6",
    "log_every=1",
    "checkpoint_every=2",
    "compute.precision=fp32",
    "evaluate.enabled=false",
]


def command(processes: int, run_dir: Path, photos: Path, *more: str) -> list[str]:
    run = ["--modality", "image", "--run-dir", str(run_dir), *SETTINGS, f"data.root={photos}", *more]
    if processes == 1:
        return [sys.executable, "-m", "jepa.launch", *run]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "jepa.launch"]
    return [sys.executable, "-m", *torchrun, *run]


def train(processes: int, run_dir: Path, photos: Path, *more: str) -> str:
    """Run to the end -> what it said."""
    done = subprocess.run(command(processes, run_dir, photos, *more), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def assert_same_training(run_dir: Path, expected: Path) -> None:
    lines = read_metrics(run_dir), read_metrics(expected)
    assert [line["step"] for line in lines[0]] == [1, 2, 3, 4, 5, 6]
    for key in ("loss", "gradient_norm"):
        one, other = ([line[key] for line in run] for run in lines)
        assert one == pytest.approx(other, rel=1e-4), key
    weights, whole = (Checkpoint.load(latest(run)).model for run in (run_dir, expected))
    assert weights.keys() == whole.keys()
    for name, value in whole.items():
        # Adam makes steps of like size of gradients that are nothing but rounding, as those of key biases are.
        torch.testing.assert_close(weights[name], value, atol=2e-4, rtol=1e-3, msg=name)


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    run_dir = tmp_path_factory.mktemp("runs") / "alone"
    assert launch.main(["--modality", "image", "--run-dir", str(run_dir), *SETTINGS, f"data.root={photos}"]) == 0
    return run_dir


@pytest.fixture(scope="module")
def sharded(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that hold half of the model each."""
    run_dir = tmp_path_factory.mktemp("runs") / "sharded"
    train(2, run_dir, photos, "compute.parallel=fsdp")
    return run_dir


def test_two_processes_with_half_the_weights_each_train_as_one_with_all(sharded: Path, alone: Path) -> None:
    assert_same_training(sharded, alone)
    assert latest(sharded).is_symlink()
    assert [path.name for path in latest(sharded).parent.glob("step_*")] == ["step_6"]  # older ones are removed
