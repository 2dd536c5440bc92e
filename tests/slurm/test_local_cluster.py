"""The temporary SLURM cluster runs jobs, fails on demand, and leaves nothing behind, however it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_programs import skip_without_slurm

import local_cluster_host
from local_cluster import Job, LocalCluster
from local_cluster_guardian import environment_of, every_process
from local_cluster_host import (
    ABANDONED_AFTER,
    INSTALL,
    ClusterError,
    isolation_works,
    remove,
    remove_abandoned,
    wait_until,
)

SCRIPT = Path(local_cluster_host.__file__).with_name("local_cluster.py")
# A job that ignores SIGTERM, with a process outside of its session and environment.
LOOP = "trap '' TERM; while :; do sleep 0.1; done"
STUBBORN = f'env -i PATH="$PATH" setsid sh -c "{LOOP} # $SLURM_CONF" & {LOOP}'
OWNER = f"""
import time
from local_cluster import LocalCluster
cluster = LocalCluster(isolate=ISOLATE)
cluster.start()
cluster.wait_for(cluster.submit({STUBBORN!r}, "--nodes=2", "--output=/dev/null"), "RUNNING")
print(cluster.folder, cluster._guardian.pid, flush=True)
time.sleep(600)
"""
ISOLATED = pytest.param(
    True, id="isolated", marks=pytest.mark.skipif(not isolation_works(), reason="needs permission for a PID namespace")
)
BOTH = pytest.mark.parametrize("isolate", [ISOLATED, pytest.param(False, id="plain")])
pytestmark = pytest.mark.usefixtures("slurm")


def processes_of(folder: Path) -> list[int]:
    """Processes with the slurm.conf of a folder in their environment, or the folder in their command."""
    return [
        pid
        for pid in every_process()
        if f"SLURM_CONF={folder}/slurm.conf".encode() in environment_of(pid) or str(folder).encode() in command_of(pid)
    ]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def runs(script: str, folder: Path) -> bool:
    return any(script.encode() in command_of(pid) for pid in processes_of(folder))


def swept_when_old(folder: Path) -> bool:
    long_ago = time.time() - ABANDONED_AFTER - 1
    os.utime(folder, (long_ago, long_ago))
    remove_abandoned()
    return not folder.exists()


def assert_gone(folder: Path, seconds: float) -> None:
    wait_until(
        lambda: not folder.exists() and not processes_of(folder),
        seconds,
        lambda: f"left behind: {folder.exists()=} {[command_of(pid) for pid in processes_of(folder)]}",
    )


@pytest.fixture
def owner(isolate: bool) -> Iterator[subprocess.Popen[str]]:
    """A process that owns a cluster with a stubborn job; it prints the folder and the guardian's id."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent)}
    script = OWNER.replace("ISOLATE", str(isolate))
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def folder_and_guardian(owner: subprocess.Popen[str]) -> tuple[Path, int]:
    assert owner.stdout is not None
    folder, guardian = owner.stdout.readline().split()
    wait_until(lambda: runs(LOOP, Path(folder)), 20, lambda: "the job does not run")
    return Path(folder), int(guardian)


def test_a_job_runs_and_writes_its_output(cluster: LocalCluster, tmp_path: Path) -> None:
    job_id = cluster.submit("echo on $SLURMD_NODENAME", f"--output={tmp_path}/out", "--job-name=greet")
    job = cluster.wait_for(job_id, "COMPLETED")
    assert job == Job(id=job_id, name="greet", state="COMPLETED", nodes=job.nodes, reason="None", restarts=0)
    assert (tmp_path / "out").read_text() == f"on {job.nodes}\n"
    assert job.nodes in cluster.names


def test_jobs_see_their_own_gpus(cluster: LocalCluster, tmp_path: Path) -> None:
    show = "echo $CUDA_VISIBLE_DEVICES; sleep 2"
    options = ["--nodelist=127.0.0.2", f"--output={tmp_path}/%j"]
    both = [cluster.submit(show, "--gpus-per-node=1", *options) for _ in range(2)]
    for job_id in both:
        cluster.wait_for(job_id, "COMPLETED")
    assert sorted((tmp_path / job_id).read_text() for job_id in both) == ["0\n", "1\n"]
    all_of_a_node = cluster.submit(show, "--gpus-per-node=2", *options)
    cluster.wait_for(all_of_a_node, "COMPLETED")
    assert (tmp_path / all_of_a_node).read_text() == "0,1\n"
    with pytest.raises(ClusterError, match="Requested node configuration is not available"):
        cluster.submit(show, "--gpus-per-node=3")


def test_sacct_answers_the_query_of_submitit_and_refuses_others(cluster: LocalCluster) -> None:
    failed = cluster.submit("exit 3", "--output=/dev/null")
    array = cluster.submit("true", "--array=0-2%2", "--output=/dev/null")
    other = cluster.submit("true", "--output=/dev/null")
    cluster.wait_for(failed, "FAILED")
    for job_id in [*(f"{array}_{index}" for index in range(3)), other]:
        cluster.wait_for(job_id, "COMPLETED")
    rows = cluster.run("sacct", "-o", "JobID,State,NodeList", "--parsable2", "-j", failed, "-j", array).splitlines()
    assert rows[0] == "JobID|State|NodeList"
    states = {job_id: state for job_id, state, _ in (row.split("|") for row in rows[1:])}
    assert states == {failed: "FAILED", **{f"{array}_{index}": "COMPLETED" for index in range(3)}}
    with pytest.raises(ClusterError, match="it supports only"):
        cluster.run("sacct", "-o", "JobID,Elapsed", "--parsable2", "-j", failed)


def test_environment_variables_for_another_cluster_are_ignored(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SQUEUE_PARTITION": "high", "SBATCH_PARTITION": "far", "SLURM_JOB_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    job_id = cluster.submit("true", "--output=/dev/null")
    assert cluster.wait_for(job_id, "COMPLETED").nodes in cluster.names


def test_a_job_of_the_high_partition_preempts_another_which_is_signalled_and_requeued(tmp_path: Path) -> None:
    with LocalCluster(nodes=1, cpus=1) as cluster:
        save_and_requeue = f"trap 'echo saved >> {tmp_path}/low; scontrol requeue $SLURM_JOB_ID' USR2; sleep 60 & wait"
        low = cluster.submit(save_and_requeue, "--signal=B:USR2@30", "--time=60", "--output=/dev/null")
        cluster.wait_for(low, "RUNNING")
        high = cluster.submit("sleep 1", "--partition=high", "--output=/dev/null")
        cluster.wait_for(high, "COMPLETED")
        assert (tmp_path / "low").read_text() == "saved\n"
        assert cluster.wait_for(low, "RUNNING").restarts == 1


@BOTH
def test_a_job_is_requeued_when_its_node_crashes_and_its_processes_there_die(isolate: bool, tmp_path: Path) -> None:
    with LocalCluster(isolate=isolate) as cluster:
        loop = f"while :; do echo $SLURM_RESTART_COUNT >> {tmp_path}/$SLURMD_NODENAME; sleep 0.05; done"
        escaped = f'env -i setsid sh -c "{loop}" & sleep 600'  # out of its session, and without the job's environment
        job_id = cluster.submit(f"srun sh -c '{escaped}'", "--nodes=2", "--output=/dev/null")
        crashed = tmp_path / "127.0.0.2"
        wait_until(crashed.exists, 20, lambda: "the job does not run on the second node")
        cluster.kill_node("127.0.0.2")
        at_the_crash = crashed.stat().st_size
        assert cluster.job(job_id).restarts == 1
        time.sleep(0.5)
        assert crashed.stat().st_size == at_the_crash
        cluster.restore_node("127.0.0.2")
        assert cluster.wait_for(job_id, "RUNNING", seconds=30).nodes == "127.0.0.[1-2]"
        wait_until(lambda: crashed.read_text().endswith("1\n"), 20, lambda: "the job does not run again")


@pytest.mark.soak
def test_the_time_limit_of_a_job_can_be_changed(cluster: LocalCluster) -> None:
    job_id = cluster.submit("sleep 100", "--time=60", "--output=/dev/null")
    cluster.wait_for(job_id, "RUNNING")
    cluster.end_in(job_id, seconds=1)
    cluster.wait_for(job_id, "TIMEOUT", seconds=60)


def test_two_clusters_run_side_by_side_and_stop_independently() -> None:
    with LocalCluster(nodes=1) as first:
        with LocalCluster(nodes=1, isolate=False) as second:
            ids = [cluster.submit("sleep 60", "--output=/dev/null") for cluster in (first, second)]
            for cluster, job_id in zip((first, second), ids, strict=True):
                assert [job.id for job in cluster.jobs()] == [job_id]
                cluster.wait_for(job_id, "RUNNING")
        assert_gone(second.folder, seconds=0)
        assert first.job(ids[0]).state == "RUNNING"
    assert_gone(first.folder, seconds=0)
    first.stop()  # again: nothing to do


@BOTH
def test_a_cluster_stops_quickly_with_a_job_that_ignores_signals(isolate: bool) -> None:
    cluster = LocalCluster(isolate=isolate)
    cluster.start()
    cluster.wait_for(cluster.submit(STUBBORN, "--nodes=2", "--output=/dev/null"), "RUNNING")
    before = time.monotonic()
    cluster.stop()
    assert time.monotonic() - before < 5
    assert_gone(cluster.folder, seconds=0)


@BOTH
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_owner_is_killed(owner: subprocess.Popen[str], how: signal.Signals) -> None:
    folder, _ = folder_and_guardian(owner)
    owner.send_signal(how)
    assert_gone(folder, seconds=10)


@BOTH
def test_leftovers_of_a_killed_owner_and_guardian_are_removed_at_the_next_start(owner: subprocess.Popen[str]) -> None:
    folder, guardian = folder_and_guardian(owner)
    os.kill(guardian, signal.SIGKILL)
    owner.kill()
    owner.wait()
    remove_abandoned()
    assert folder.exists()  # a young folder may belong to a starting cluster
    wait_until(lambda: swept_when_old(folder), 20, lambda: f"{folder} stays")
    assert_gone(folder, seconds=0)


@BOTH
def test_a_cluster_with_a_killed_guardian_reports_it_and_still_cleans_up(isolate: bool) -> None:
    with LocalCluster(isolate=isolate) as cluster:
        cluster.wait_for(cluster.submit(STUBBORN, "--output=/dev/null"), "RUNNING")
        os.kill(cluster._guardian.pid, signal.SIGKILL)
        with pytest.raises(ClusterError, match="guardian"):
            cluster.kill_node("127.0.0.1")
    assert_gone(cluster.folder, seconds=0)


def test_removal_finds_what_a_process_starts_out_of_its_environment_until_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    escaping = f"while :; do env -i PATH=$PATH setsid sh -c 'sleep 9; : {folder}' & sleep 0.005; done"
    with subprocess.Popen(["sh", "-c", escaping], env={**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}):
        wait_until(lambda: runs("sleep 9", folder), 20, lambda: "no process escapes")
        remove(folder)
    assert_gone(folder, seconds=0)


def test_a_folder_in_use_is_not_removed_as_abandoned(cluster: LocalCluster) -> None:
    assert not swept_when_old(cluster.folder)
    cluster.wait_for(cluster.submit("true", "--output=/dev/null"), "COMPLETED")


def test_a_port_that_is_taken_meanwhile_leads_to_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    free_ports = local_cluster_host.free_ports
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        answers = iter([[*free_ports(2), port], free_ports(3)])
        monkeypatch.setattr(local_cluster_host, "free_ports", lambda count: next(answers))
        with LocalCluster(nodes=2) as cluster:
            cluster.wait_for(cluster.submit("true", "--output=/dev/null"), "COMPLETED")
    assert next(answers, None) is None


def test_missing_programs_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_cluster_host, "SEARCH_PATH", "/nowhere")
    with pytest.raises(ClusterError, match=rf"munged, slurmctld, .* not found; on Debian and Ubuntu: {INSTALL}"):
        LocalCluster().start()


@pytest.mark.parametrize("wrong", ["--nodes=0", "--nodes=255", "--cpus=0", "--gpus=-1"])
def test_an_impossible_cluster_is_refused_in_a_sentence(wrong: str) -> None:
    done = subprocess.run([sys.executable, SCRIPT, wrong, "--", "true"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(": 1 to 254 nodes, CPUs from 1, GPUs from 0\n")
    assert done.stderr.count("\n") == 1


def test_a_cluster_for_a_command_ends_with_it_and_has_its_exit_status() -> None:
    command = "echo $SLURM_CONF; sinfo --noheader --Node --partition=main; exit 7"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--nodes=3", "--", "sh", "-c", command], capture_output=True, text=True, timeout=60
    )
    conf, *nodes = done.stdout.splitlines()
    assert (done.returncode, len(nodes), done.stderr) == (7, 3, "")
    assert_gone(Path(conf).parent, seconds=10)
    unknown = subprocess.run([sys.executable, SCRIPT, "--", "no-such"], capture_output=True, text=True, timeout=60)
    assert (unknown.returncode, unknown.stderr) == (127, "no-such: No such file or directory\n")


def test_a_cluster_without_a_command_prints_its_variables_and_runs_until_ctrl_c() -> None:
    deaf = ["sh", "-c", 'trap "" INT; exec "$0" "$@"']  # as in a background process of a script
    with subprocess.Popen(
        [*deaf, sys.executable, SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as kept:
        try:
            assert kept.stdout is not None
            export = kept.stdout.readline()
            shell = f"{export}\nsinfo --noheader --Node --partition=main; which sacct"
            shown = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout.split()
            kept.send_signal(signal.SIGINT)
            assert kept.wait(timeout=20) == 0
        finally:
            kept.kill()
    assert shown.count("idle") == 2
    assert_gone(Path(shown[-1]).parents[1], seconds=0)


def test_slurm_tests_are_skipped_without_slurm_unless_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_cluster_host, "SEARCH_PATH", "/nowhere")
    monkeypatch.delenv("JEPA_REQUIRE_SLURM", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"slurmctld, slurmd, .* is missing"):
        skip_without_slurm()
    monkeypatch.setenv("JEPA_REQUIRE_SLURM", "1")
    with pytest.raises(pytest.fail.Exception, match=r"slurmctld, slurmd, .* is missing"):
        skip_without_slurm()
