"""Fixtures that tests share. Slow imports are in functions, as the process that starts the workers needs none."""

import os
from collections.abc import Iterator
from pathlib import Path

import fork_server
import pytest
from places import SUPPORT
from slurm_programs import skip_without_slurm

from local_cluster import LocalCluster

# The files that take longest start first, those that wait for SLURM before all others, so that none is left at the end.
LONGEST = [
    *("cluster/test_slurm.py", "training/test_kill.py", "training/test_fsdp.py", "cluster/test_jobs.py"),
    *("image_text/test_image_text.py", "cost/test_cost.py", "slurm/test_local_cluster.py", "tests/test_docs.py"),
    *("cross_modal/test_cross_modal.py", "video/test_video.py", "test_distributed.py", "test_benchmarks.py"),
    *("test_out_of_tree.py", "test_check_modality.py", "test_launch.py", "test_masking.py", "test_report.py"),
    *("test_evaluate.py", "test_scene_captions.py", "test_moving_scenes.py", "test_video_decode.py", "test_ready.py"),
    *("test_open_clip_towers.py", "test_promises.py", "test_attentive.py", "test_audio.py", "test_time_series.py"),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--no-loadscope-reorder`, pytest-xdist starts files in this order."""
    rank = {ending: number for number, ending in enumerate(LONGEST)}

    def start(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return min((number for ending, number in rank.items() if path.endswith(ending)), default=len(rank))

    items.sort(key=start)


def pytest_configure() -> None:
    """Start the fork server before pytest-xdist starts its workers: they share it."""
    fork_server.address()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Tests that draw from the global generator draw the same every time."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four small pictures of noise, without labels."""
    import torch
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    noise = torch.randint(256, (24, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels.numpy()).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture(scope="session")
def slurm() -> None:
    """The programs of SLURM, for tests that start their own clusters."""
    skip_without_slurm()


@pytest.fixture(scope="session")
def cluster(slurm: None) -> Iterator[LocalCluster]:
    """A real SLURM cluster, reached through its `environment`: two nodes of four CPUs and two fake GPUs each."""
    with LocalCluster(nodes=2, cpus=4, gpus=2) as running:
        yield running


@pytest.fixture
def on_cluster(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> LocalCluster:
    """The cluster, with its variables in this environment; its jobs find the modules of tests/support."""
    for key, value in cluster.environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")])))
    return cluster


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("profiles") / "tiny.yaml"
    path.write_text("timeout_min: 30\nsignal_delay_s: 5\n")
    return str(path)
