"""The throw-away SLURM cluster: it runs jobs, fails on demand, and leaves nothing behind."""

from pathlib import Path

from local_cluster import LocalCluster


def test_a_job_runs_and_its_output_is_there(cluster: LocalCluster, tmp_path: Path) -> None:
    job_id = cluster.submit("echo on $SLURMD_NODENAME", f"--output={tmp_path}/out")
    job = cluster.wait_for(job_id, "COMPLETED")
    assert (tmp_path / "out").read_text() == f"on {job.nodes}\n"
