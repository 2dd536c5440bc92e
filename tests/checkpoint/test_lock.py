"""A run directory has one writer: real processes, really killed."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jepa.checkpoint.lock import RunInUseError, locked
from jepa.config import ConfigError

HOLD = """
import os, sys, time
from pathlib import Path
from jepa.checkpoint.lock import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:      # a child that outlives its parent, as a data loader may for seconds
        time.sleep(30)
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_writer_is_refused_and_a_killed_holder_does_not_block(tmp_path: Path) -> None:
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
        named = rf"{run_dir} .* process {holder.pid} on .* \(SLURM job 77\) since 2"
        with pytest.raises(RunInUseError, match=named), locked(run_dir):
            pass
        assert (run_dir / "lock").exists()  # the refused writer removed nothing
        holder.kill()
        holder.wait()
        with locked(run_dir):
            assert f'"pid": {os.getpid()}' in (run_dir / "lock").read_text()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate()
    assert not (run_dir / "lock").exists()


def test_releasing_a_lock_removes_it_and_a_directory_left_empty(tmp_path: Path) -> None:
    with locked(tmp_path / "runs" / "empty"):
        pass
    assert not (tmp_path / "runs" / "empty").exists()
    with locked(tmp_path / "runs" / "full"):
        (tmp_path / "runs" / "full" / "config.yaml").touch()
    assert [path.name for path in (tmp_path / "runs" / "full").iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_locks_in_the_file_system_a_run_warns_once_and_runs(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    for _ in range(2):
        with locked(tmp_path / "run"):
            (tmp_path / "run" / "config.yaml").touch()
    said = capsys.readouterr().err
    assert said.startswith(f"warning: the file system of {tmp_path}/run has no locks ({os.strerror(code)}), so ")
    assert said.count("\n") == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_run_directory_that_cannot_be_locked_is_a_config_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = errno.EIO

    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(ConfigError, match=f"run_dir: {tmp_path}/run .*{os.strerror(code)}"), locked(tmp_path / "run"):
        pass


def test_a_lock_file_that_is_removed_while_it_is_locked_is_locked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run removes its lock file between another's opening and locking it."""
    import fcntl

    removed = []
    system_flock = fcntl.flock

    def flock(file: int, operation: int) -> None:
        if not removed:
            (tmp_path / "run" / "lock").unlink()
            removed.append(file)
        system_flock(file, operation)

    monkeypatch.setattr("fcntl.flock", flock)
    with locked(tmp_path / "run"):
        assert removed
        with pytest.raises(RunInUseError), locked(tmp_path / "run"):
            pass
