"""`--processes`: the processes of one run on this machine, started and ended together."""

import time
from pathlib import Path

import fork_server
import pytest
from runs import arguments

from jepa.checkpoint import latest
from jepa.checkpoint.file import read_step
from jepa.config import ConfigError
from jepa.distributed import peers
from jepa.distributed.starter import run_processes
from jepa.errors import INTERRUPTED
from jepa.training.log import read_metrics
from local_cluster_host import wait_until

PROGRAM = """
import os, pathlib, sys, time
rank, folder = os.environ["RANK"], pathlib.Path(sys.argv[1])
(folder / rank).write_text(" ".join(os.environ[name] for name in ("WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS")))
if rank == sys.argv[2]:
    sys.exit(3)
time.sleep(float(sys.argv[3]))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "of_a_group.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(peers, "GRACE", 0.2)
    monkeypatch.setattr("torch.get_num_threads", lambda: 7)
    return "of_a_group"


def test_processes_of_a_group_share_the_threads(module: str, tmp_path: Path) -> None:
    assert run_processes(3, module, [str(tmp_path), "none", "0"]) == 0
    assert [(tmp_path / str(rank)).read_text() for rank in range(3)] == ["3 0 2", "3 1 2", "3 2 2"]


def test_a_process_that_fails_ends_the_others_and_gives_the_status(module: str, tmp_path: Path) -> None:
    started = time.monotonic()
    assert run_processes(2, module, [str(tmp_path), "1", "60"]) == 3
    assert time.monotonic() - started < 30


def test_processes_do_not_multiply(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun or a scheduler"):
        run_processes(2, module, [])


def test_a_signal_to_the_starter_stops_the_run_and_saves_it(photos: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    started = fork_server.start("jepa.launch", *arguments(run_dir, photos, "steps=100000", "--processes=2"))
    wait_until(lambda: started.poll() is not None or bool(read_metrics(run_dir)), 60, lambda: "no step")
    started.terminate()
    done = started.finish()
    assert done.returncode == INTERRUPTED, done.stderr
    assert done.stderr.count("stopped by SIGTERM") == 1
    assert read_step(latest(run_dir)) > 0
