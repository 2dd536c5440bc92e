"""All processes resume from the same step of the same run, or all of them end with one sentence."""

import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import fork_server
import torch
import torch.distributed as dist
from small_runs import small

from jepa import launch
from jepa.checkpoint import Checkpoint, latest
from jepa.distributed import World
from jepa.errors import UserError
from jepa.training import resume
from jepa.training.resume import checkpoint_to_resume

SETTINGS = [
    *("model.size={width: 16, depth: 1, heads: 2}", "model.predictor={width: 16, depth: 1, heads: 2}", "steps=2"),
    *("optim.batch_size=4", "compute.workers=0", "evaluate.enabled=false", "evaluate.report=false"),
]
NOTHING_SHARED = "put the run directory on storage that all nodes share, and start the run again"


def launch_in_own_folder(folder: str) -> None:
    """Train in the folder of this process: the run directory is not shared."""
    resume.PATIENCE = 0.1
    os.chdir(Path(folder) / os.environ["RANK"])
    sys.exit(launch.main(["--modality", "tiny:Noise", "--run-dir", "run", *SETTINGS]))


def test_a_run_directory_that_one_node_does_not_see_ends_all_processes_with_one_sentence(tmp_path: Path) -> None:
    for rank in "01":
        (tmp_path / rank).mkdir()
    save(tmp_path / "0" / "run", 1)
    done = fork_server.run_group(2, "call", __file__, "launch_in_own_folder", str(tmp_path))
    assert done.returncode == 1
    seen = "run_dir: process 0 on .* sees a checkpoint of step 1 in run, and process 1 on .* sees no checkpoint there; "
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2, done.stderr
    for line in errors:
        assert line.endswith(NOTHING_SHARED), line
        assert re.search(seen, line), line
    assert not (tmp_path / "1" / "run" / "checkpoints").exists()


def save(run_dir: Path, step: int) -> None:
    Checkpoint(step, 0.0, {}, {"weight": torch.zeros(1)}, {}).save(latest(run_dir))


def agree(folder: str) -> None:
    """One of two processes: what it decides when it sees the checkpoint late, other data, or has another config."""
    dist.init_process_group("gloo")
    world = World(dist.get_rank(), 2, torch.device("cpu"))
    own, run_dir = Path(folder) / str(world.rank), Path(folder) / "run"
    config, modality = small()
    shared, split = replace(config, run_dir=run_dir), replace(config, run_dir=Path("run"))
    own.mkdir()
    os.chdir(own)
    if world.is_main:
        save(own / "run", 5)
    else:
        Timer(0.5, lambda: shutil.copytree(Path(folder) / "0" / "run", own / "run")).start()
    said = [str(checkpoint_to_resume(one, modality.dataset("train"), world)) for one in (shared, split)]
    for settings, more in ((replace(shared, steps=3 + world.rank), 0), (shared, world.rank)):
        samples: Any = range(20 + more)
        try:
            checkpoint_to_resume(settings, samples, world)
        except UserError as error:
            said.append(str(error))
    (own / "said").write_text("\n".join(said))
    world.leave()


def test_processes_wait_for_a_late_checkpoint_and_refuse_other_data_and_other_configs(tmp_path: Path) -> None:
    done = fork_server.run_group(2, "call", __file__, "agree", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for rank in "01":
        fresh, late, config, data = (tmp_path / rank / "said").read_text().splitlines()
        assert (fresh, late) == ("None", "run/checkpoints/latest.pt")
        assert "process 1 on " in config
        assert "has another config than process 0 on" in config
        assert "steps (3 there, 4 now)" in config
        assert "finds 20 training samples, and process 1 on" in data
        assert "finds 21; all nodes must hold the same data" in data
