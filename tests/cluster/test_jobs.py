"""`jepa jobs` reports submitted runs within seconds, including those that were killed."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from runs import SLOW, arguments, launch_here, log_of, status, until, until_ended

from jepa.checkpoint.lock import locked
from jepa.cluster.job import Attempts, read_attempts, read_job, write_job
from jepa.cluster.status import cancel, jobs, logs
from jepa.launch import main
from local_cluster import LocalCluster


def jobs_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Output of `jepa jobs`, which takes less than five seconds."""
    capsys.readouterr()
    started = time.monotonic()
    assert jobs([str(folder)]) == 0
    assert time.monotonic() - started < 5
    return capsys.readouterr().out


def start_endless(run_dir: Path, photos: Path, profile: str) -> None:
    """Submit a run that does not end soon, and wait until it trains."""
    assert main(arguments(run_dir, photos, "--slurm", profile, "steps=100000", modality=SLOW)) == 0
    until(run_dir, lambda found: found.step > 0)


def test_a_run_whose_training_ends_during_the_query_waits_for_its_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, programs = tmp_path / "run", tmp_path / "bin"
    evaluation = {"job_id": "2", "log": "2_0_log.out"}
    content = {"job_id": "1", "cluster": "slurm", "log": "1_0_log.out", "evaluation": evaluation}
    run_dir.mkdir()
    write_job(run_dir, content)
    Attempts(run_dir, "1", True).begin(["here"])
    programs.mkdir()
    squeue = programs / "squeue"  # answers, and the job ends before the answer is read
    ended = '{"job_id": "1", "end": 0, "how": "finished"}'
    squeue.write_text(f"#!/bin/sh\necho '1|RUNNING'\necho '2|PENDING'\necho '{ended}' >> {run_dir}/attempts.jsonl\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    found = status(run_dir)
    assert (found.state, found.job_id, found.attempts) == ("PENDING", "2", 1)


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path, "1", True)
    attempts.begin(["here"])
    with (tmp_path / "attempts.jsonl").open("a") as file:
        file.write('{"job_id": "1", "begin": 17')  # the disk was full
    attempts.begin(["here"])
    attempts.end("finished")
    assert attempts.count() == 2
    assert [line.get("how") for line in read_attempts(tmp_path)] == [None, None, "finished"]


def test_the_reason_of_a_failed_run_is_shown(
    on_cluster: LocalCluster, profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unreadable = tmp_path / "unreadable"
    unreadable.mkdir()
    for index in range(16):
        (unreadable / f"{index}.png").write_bytes(b"no image")
    assert main(arguments(tmp_path / "run", unreadable, "--slurm", profile)) == 0
    assert until_ended(tmp_path / "run").state == "FAILED"
    printed = jobs_output(tmp_path, capsys)
    assert "exit status 1" in printed
    assert "samples in a row cannot be read" in printed


def test_a_killed_run_is_reported_as_failed_with_and_without_accounting(
    on_cluster: LocalCluster,
    profile: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dir = tmp_path / "run"
    start_endless(run_dir, photos, profile)
    assert "RUNNING" in jobs_output(tmp_path, capsys)
    on_cluster.run("scancel", "--signal=KILL", f"{read_job(run_dir)['job_id']}.0")
    failed = until_ended(run_dir)
    assert (failed.state, failed.reason) == ("FAILED", "killed without a message; often it ran out of memory")
    assert "Killed" in jobs_output(tmp_path, capsys)
    monkeypatch.setattr("jepa.cluster.status._rows", lambda *_: [])  # the cluster no longer knows the job
    assert status(run_dir).state == "FAILED"


def test_a_job_on_two_nodes_ends_when_one_of_its_processes_is_killed(
    on_cluster: LocalCluster, profile: str, photos: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    more = ("--slurm", profile, "--nodes", "2", "steps=100000", "evaluate.report=true")
    assert main(arguments(run_dir, photos, *more, modality=SLOW)) == 0
    until(run_dir, lambda found: found.step > 0)
    os.kill(processes_of(read_job(run_dir)["job_id"], "1")[0], signal.SIGKILL)
    started = time.monotonic()
    assert until_ended(run_dir).state == "FAILED"
    assert time.monotonic() - started < 15
    assert "error: another process of the run died" in log_of(run_dir)
    assert "Traceback" not in log_of(run_dir)
    on_cluster.wait_for(read_job(run_dir)["evaluation"]["job_id"], "CANCELLED")  # it never starts
    with locked(run_dir):
        pass


def processes_of(job_id: str, rank: str) -> list[int]:
    """Processes of a rank of a job, in the order in which they started."""
    wanted = {f"SLURM_JOB_ID={job_id}".encode(), f"SLURM_PROCID={rank}".encode()}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                found.append(int(folder.name))
    return sorted(found)


def test_a_cancelled_run_saves_and_is_not_requeued(
    on_cluster: LocalCluster, profile: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    start_endless(run_dir, photos, profile)
    assert main(arguments(run_dir, photos, "--slurm", profile, "steps=100000", modality=SLOW)) == 0
    assert "1 of 1 runs are finished" in capsys.readouterr().err
    assert cancel([str(run_dir)]) == 0
    until(run_dir, lambda found: found.state == "CANCELLED")
    on_cluster.wait_for(read_job(run_dir)["job_id"], "CANCELLED")
    assert [line["how"] for line in read_attempts(run_dir) if "how" in line] == ["stopped"]
    assert cancel([str(run_dir)]) == 1
    assert ": CANCELLED" in capsys.readouterr().err
    assert logs([str(run_dir), "-f"]) == 0
    assert "stopped by SIGTERM after step" in capsys.readouterr().out


def test_a_run_fails_after_its_last_attempt(
    on_cluster: LocalCluster, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, once = tmp_path / "run", tmp_path / "once.yaml"
    once.write_text("max_requeues: 0\ntimeout_min: 30\n")
    start_endless(run_dir, photos, str(once))
    on_cluster.run("scancel", "--signal=USR2", read_job(run_dir)["job_id"])
    assert until_ended(run_dir).reason == "not finished after 1 attempts, max_requeues is 0"
    assert "error: not finished after 1 attempts" in jobs_output(tmp_path, capsys)


def test_a_run_on_submitits_local_cluster_finishes_in_the_background(photos: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    launch_here(*arguments(run_dir, photos, "--slurm", "local", "steps=5"))
    assert until(run_dir, lambda found: found.state == "FINISHED").attempts == 1
