"""What became of submitted runs is told within seconds, also of those that died without a word."""

import time
from pathlib import Path

import pytest
from runs import arguments, launch_here, status, until, until_ended

from jepa.cluster.job import read_attempts, read_job
from jepa.cluster.status import cancel, jobs, logs
from jepa.launch import main
from local_cluster import LocalCluster


def told(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `jepa jobs` prints, within seconds."""
    capsys.readouterr()
    started = time.monotonic()
    assert jobs([str(folder)]) == 0
    assert time.monotonic() - started < 5
    return capsys.readouterr().out


def start_endless(run_dir: Path, photos: Path, profile: str) -> None:
    """Submit a run that will not end by itself, and wait until it trains."""
    assert main(arguments(run_dir, photos, "--slurm", profile, "steps=100000")) == 0
    until(run_dir, lambda found: found.step > 0)


def test_a_run_that_fails_says_why(
    on_cluster: LocalCluster,
    profile: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    unreadable = tmp_path / "unreadable"
    unreadable.mkdir()
    for index in range(16):
        (unreadable / f"{index}.png").write_bytes(b"no image")
    assert main(arguments(tmp_path / "run", unreadable, "--slurm", profile)) == 0
    assert until_ended(tmp_path / "run").state == "FAILED"
    said = told(tmp_path, capsys)
    assert "exit status 1" in said
    assert "samples in a row cannot be read" in said


def test_a_run_that_is_killed_is_not_taken_for_alive_with_and_without_accounting(
    on_cluster: LocalCluster,
    profile: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dir = tmp_path / "run"
    start_endless(run_dir, photos, profile)
    assert "RUNNING" in told(tmp_path, capsys)
    on_cluster.run("scancel", "--signal=KILL", f"{read_job(run_dir)['job_id']}.0")
    failed = until_ended(run_dir)
    assert (failed.state, failed.reason) == ("FAILED", "killed before it could say why; for memory, often")
    assert "Killed" in told(tmp_path, capsys)
    monkeypatch.setattr("jepa.cluster.status._rows", lambda *_: [])  # a cluster that has forgotten the job
    assert status(run_dir).state == "FAILED"


def test_a_cancelled_run_saves_and_is_not_queued_again(
    on_cluster: LocalCluster,
    profile: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = tmp_path / "run"
    start_endless(run_dir, photos, profile)
    assert main(arguments(run_dir, photos, "--slurm", profile, "steps=100000")) == 0
    assert "1 of 1 runs are finished or on their way" in capsys.readouterr().err
    assert cancel([str(run_dir)]) == 0
    until(run_dir, lambda found: found.state == "CANCELLED")
    on_cluster.wait_for(read_job(run_dir)["job_id"], "CANCELLED")
    assert [line["how"] for line in read_attempts(run_dir) if "how" in line] == ["stopped"]
    assert cancel([str(run_dir)]) == 1
    assert "does not run any more: CANCELLED" in capsys.readouterr().err
    assert logs([str(run_dir), "-f"]) == 0
    assert "stopped by SIGTERM after step" in capsys.readouterr().out


def test_attempts_are_not_without_end(
    on_cluster: LocalCluster,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir, once = tmp_path / "run", tmp_path / "once.yaml"
    once.write_text("max_requeues: 0\ntimeout_min: 30\n")
    start_endless(run_dir, photos, str(once))
    on_cluster.run("scancel", "--signal=USR2", read_job(run_dir)["job_id"])
    assert until_ended(run_dir).reason == "not finished after 1 attempts, max_requeues is 0"
    assert "error: not finished after 1 attempts" in told(tmp_path, capsys)


def test_submitits_own_cluster_runs_here_in_the_background(photos: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    launch_here(*arguments(run_dir, photos, "--slurm", "local", "steps=5"))
    assert until(run_dir, lambda found: found.state == "FINISHED").attempts == 1
