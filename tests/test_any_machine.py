"""Importing the packages and training in one process need nothing that only POSIX systems have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jepa.checkpoint import Checkpoint, latest
from jepa.training.log import read_metrics

# The libraries are imported first: they choose by system, and a real Windows would show them another one.
WITHOUT_POSIX = """
import os, signal, sys
import filelock, numpy, pydantic, rich.progress, torch, torchvision, torch.distributed, torch.utils.tensorboard
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("fork", "sched_getaffinity", "O_DIRECTORY", "getuid", "uname"):
    delattr(os, name)
del signal.SIGUSR2, signal.SIGKILL
import jepa, jepa.launch, modalities.image, modalities.image_text, modalities.video, modalities.worlds.cache
sys.exit(jepa.launch.main(sys.argv[1:]))
"""


def test_a_run_in_one_process_trains_without_posix_modules_and_signals(photos: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    settings = f"""
        data.source=folder data.root={photos} data.image_size=32 data.patch_size=4
        model.size.width=48 model.size.depth=1 model.size.heads=2 model.predictor.width=32 model.predictor.heads=2
        optim.batch_size=8 steps=2 log_every=1 evaluate.enabled=false evaluate.report=false
    """
    command = ["--modality", "image", "--run-dir", str(run_dir), *settings.split()]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX, *command], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in read_metrics(run_dir)] == [1, 2]
    assert Checkpoint.load(latest(run_dir)).step == 2
    assert not (run_dir / "lock").exists()


@pytest.mark.parametrize(
    ("users", "expected"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_threads_do_not_hold_busy_cores_unless_the_user_says_so(users: dict[str, str], expected: str) -> None:
    """It must be set before torch is imported, which reads it once."""
    code = "import jepa, os, sys; assert 'torch' not in sys.modules; print(os.environ.get('GOMP_SPINCOUNT'))"
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=others | users, check=True)
    assert done.stdout.strip() == expected
