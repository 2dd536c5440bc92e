"""A run directory has one writer: real processes, really killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jepa.checkpoint.lock import RunInUseError, locked

HOLD = """
import os, sys, time
from pathlib import Path
from jepa.checkpoint.lock import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:      # a child that outlives its parent, as a loader of data may for seconds
        time.sleep(30)
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_living_holder_is_named_and_a_killed_one_does_not_block(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"SLURM_JOB_ID": "77"},
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        sentence = rf"{run_dir} is being written by process {holder.pid} on .* \(SLURM job 77\) since 2.*; wait for it"
        with pytest.raises(RunInUseError, match=sentence), locked(run_dir):
            pass
        assert (run_dir / "lock").exists()  # the one who was refused took nothing away
        holder.kill()
        holder.wait()
        with locked(run_dir):
            assert f'"pid": {os.getpid()}' in (run_dir / "lock").read_text()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate()
    assert not (run_dir / "lock").exists()


def test_a_lock_leaves_nothing_behind_but_what_was_written_under_it(tmp_path: Path) -> None:
    with locked(tmp_path / "runs" / "empty"):
        pass
    assert not (tmp_path / "runs" / "empty").exists()
    with locked(tmp_path / "runs" / "full"):
        (tmp_path / "runs" / "full" / "config.yaml").touch()
    assert [path.name for path in (tmp_path / "runs" / "full").iterdir()] == ["config.yaml"]
