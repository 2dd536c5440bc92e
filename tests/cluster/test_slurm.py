"""Runs under a real SLURM, interrupted or not, end with the weights of local runs; mistakes are reported first."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import POLL, SLOW, arguments, assert_same_weights, launch_here, log_of, status, sweep_here, until, until_ended

from jepa.checkpoint import latest
from jepa.cluster.job import read_attempts, read_job
from jepa.cluster.profile import Profile, profile_names, read_profile
from jepa.cluster.status import JobStatus
from jepa.cluster.sweep import is_finished
from jepa.config import ConfigError
from jepa.launch import main
from local_cluster import LocalCluster
from local_cluster_host import wait_until


@pytest.fixture(scope="session")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted local run."""
    run_dir = tmp_path_factory.mktemp("here") / "whole"
    launch_here(*arguments(run_dir, photos, modality=SLOW))
    return run_dir


def test_included_profiles_are_valid_and_unknown_keys_are_refused(tmp_path: Path) -> None:
    assert profile_names() == ["a100", "cpu", "h100", "preemptible"]
    assert [read_profile(name, {}).processes for name in profile_names()] == [16, 1, 8, 1]
    assert read_profile("a100", {"nodes": 4}).processes == 32
    assert read_profile("debug", {}) == Profile(cluster="debug")
    (tmp_path / "wrong.yaml").write_text("partitions: a100\n")
    with pytest.raises(ConfigError, match=r"wrong\.yaml: unknown key 'partitions', did you mean 'partition'\?"):
        read_profile(str(tmp_path / "wrong.yaml"), {})
    with pytest.raises(ConfigError, match=r"--slurm b200 .* a100, cpu, h100,"):
        read_profile("b200", {})


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["optim.peek_lr=1"], "unknown key 'optim.peek_lr'"),
        (["data.root=/no/such/folder"], "data root /no/such/folder does not exist"),
        (["start_from=/no/such/run"], "start_from: no checkpoint at /no/such/run"),
        (["model.predictor.mask_tokens=3"], "model.predictor.mask_tokens: "),
        (["--nodes", "16"], "optim.batch_size: 8 samples do not divide among 16 processes"),
        (["--sweep", "steps=1,many"], "steps: should be a valid integer, not 'many'"),
        (["--partition", "nowhere"], "the cluster refuses the job: "),
    ],
)
def test_mistakes_are_reported_before_anything_is_submitted(
    more: list[str],
    sentence: str,
    on_cluster: LocalCluster,
    profile: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {job.id for job in on_cluster.jobs()}
    assert main(arguments(tmp_path / "run", photos, "--slurm", profile, *more)) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ")
    assert sentence in said
    assert {job.id for job in on_cluster.jobs() if job.reason != "BadConstraints"} - before == set()
    assert not read_job(tmp_path / "run")


def test_a_dry_run_writes_the_batch_script_and_submits_nothing(
    on_cluster: LocalCluster, profile: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = on_cluster.jobs()
    more = ["--slurm", profile, "--slurm-dry-run", "--nodes", "2", "--time", "1.5", "--seeds", "3"]
    assert main(arguments(tmp_path / "run", photos, *more)) == 0
    script = Path(capsys.readouterr().out.strip().rpartition(" ")[2]).read_text()
    for line in ("--nodes=2", "--time=90", "--signal=USR2@5", "--array=0-2%3", "--requeue"):
        assert f"#SBATCH {line}\n" in script
    assert main(arguments(tmp_path / "line\nbreak", photos, *more)) == 1
    assert f"error: {tmp_path}/line break/slurm: SLURM accepts no folder with control " in capsys.readouterr().err
    assert on_cluster.jobs() == before


def preempted(cluster: LocalCluster, job_id: str, run_dir: Path) -> None:
    cluster.submit("true", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null")


def node_killed(cluster: LocalCluster, job_id: str, run_dir: Path) -> None:
    wait_until(latest(run_dir).exists, 60, lambda: "no checkpoint")
    node = cluster.job(job_id).nodes
    cluster.kill_node(node)
    cluster.restore_node(node)


@pytest.mark.parametrize("happens", [preempted, node_killed])
def test_an_interrupted_run_resumes_and_ends_with_the_weights_of_an_uninterrupted_one(
    happens: Callable[[LocalCluster, str, Path], None],
    on_cluster: LocalCluster,
    profile: str,
    photos: Path,
    whole: Path,
    tmp_path: Path,
) -> None:
    run_dir = tmp_path / "run"
    assert main(arguments(run_dir, photos, "--slurm", profile, modality=SLOW)) == 0
    until(run_dir, lambda found: found.step > 20)
    happens(on_cluster, read_job(run_dir)["job_id"], run_dir)
    ended = until_ended(run_dir)
    log = log_of(run_dir)
    assert (ended.state, ended.attempts) == ("FINISHED", 2), log
    assert log.count("fresh run") == 1
    assert log.count("resumed from step") == 1
    assert_same_weights(run_dir, whole)
    assert read_attempts(run_dir)[-1]["how"] == "finished"
    assert not list((run_dir / "slurm").glob("*_error*"))


def test_an_array_of_two_runs_equals_the_same_sweep_without_slurm(
    on_cluster: LocalCluster, profile: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = Path(profile).with_name("one.yaml")
    narrow.write_text("array_parallelism: 1\n")
    sweep = ["--sweep", "optim.peak_lr=1e-3,1e-4", "steps=20"]
    assert main(arguments(tmp_path / "there", photos, *sweep, "--slurm", str(narrow))) == 0
    assert sweep_here(*arguments(tmp_path / "here", photos, *sweep)) == 0
    names = sorted(path.parent.name for path in (tmp_path / "here").glob("*/config.yaml"))
    assert names == ["peak_lr=0.0001", "peak_lr=0.001"]
    most = 0
    for name in names:
        while status(tmp_path / "there" / name).is_active:
            most = max(most, sum(job.state == "RUNNING" for job in on_cluster.jobs()))
            time.sleep(POLL)
        assert is_finished(tmp_path / "there" / name)
        assert_same_weights(tmp_path / "there" / name, tmp_path / "here" / name)
    assert most == 1
    before = {job.id for job in on_cluster.jobs()}
    assert main(arguments(tmp_path / "there", photos, *sweep, "--slurm", str(narrow))) == 0
    assert {job.id for job in on_cluster.jobs()} == before
    assert "2 of 2 runs are finished" in capsys.readouterr().err


def all_logs_of(ended: JobStatus, cluster: LocalCluster) -> str:
    logs = sorted((ended.run_dir / "slurm").glob("*.*"))
    return "\n".join(
        [
            f"{ended}",
            *map(str, cluster.jobs()),
            *(f"{path.name}:\n{path.read_text()}" for path in logs if path.suffix != ".pkl"),
        ]
    )


def test_a_run_on_two_nodes_resumes_after_a_signal_equals_two_processes_here_and_is_evaluated_on_one_node(
    on_cluster: LocalCluster, profile: str, photos: Path, tmp_path: Path
) -> None:
    run_dir, more = tmp_path / "run", ("steps=60",)
    reported = (*more, "evaluate.enabled=true", "--slurm", profile, "--nodes", "2")
    assert main(arguments(run_dir, photos, *reported, modality=SLOW)) == 0
    training = Path(read_job(run_dir)["log"])
    until(run_dir, lambda found: found.step > 10)
    on_cluster.run("scancel", "--signal=USR2", read_job(run_dir)["job_id"])
    ended = until_ended(run_dir)
    log = training.read_text()
    assert (ended.state, ended.attempts) == ("FINISHED", 2), all_logs_of(ended, on_cluster)
    assert log.count("fresh run") == 1
    assert log.count("resumed from step") == 1
    assert "results: " not in log
    assert "results: " in ended.log.read_text()
    begun = [line for line in read_attempts(run_dir) if "begin" in line]
    assert [line["hosts"] for line in begun] == [*2 * [["127.0.0.1", "127.0.0.2"]], begun[-1]["hosts"]]
    assert (begun[-1]["job_id"], len(begun[-1]["hosts"])) == (read_job(run_dir)["evaluation"]["job_id"], 1)
    launch_here(*arguments(tmp_path / "here", photos, *more, modality=SLOW), processes=2)
    assert_same_weights(run_dir, tmp_path / "here")


@pytest.mark.soak
def test_a_run_over_its_time_limit_resumes_and_ends_with_the_weights_of_an_uninterrupted_one(
    on_cluster: LocalCluster, profile: str, photos: Path, tmp_path: Path
) -> None:
    # SLURM checks time limits every 30 s and may signal that much too early: here 15 to 45 s after the start.
    slow = Path(profile).with_name("slow.yaml")
    slow.write_text("timeout_min: 2\nsignal_delay_s: 75\n")
    run_dir, more = tmp_path / "run", ("steps=2500",)
    assert main(arguments(run_dir, photos, *more, "--slurm", str(slow))) == 0
    launch_here(*arguments(tmp_path / "here", photos, *more))
    ended = until(run_dir, lambda found: not found.is_active, seconds=300)
    assert ended.state == "FINISHED", log_of(run_dir)
    assert ended.attempts > 1
    assert log_of(run_dir).count("fresh run") == 1
    assert "stopped by SIGUSR2 after step" in log_of(run_dir)
    assert_same_weights(run_dir, tmp_path / "here")
