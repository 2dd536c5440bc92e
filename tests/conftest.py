"""What tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from local_cluster import LocalCluster
from local_cluster_host import INSTALL, missing_programs


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Tests that draw from the global generator draw the same every time."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four small pictures of noise, without labels."""
    folder = tmp_path_factory.mktemp("photos")
    noise = torch.randint(256, (24, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels.numpy()).save(folder / f"{index:02}.png")
    return folder


def skip_without_slurm() -> None:
    """Skip the test, saying why, or fail it with JEPA_REQUIRE_SLURM=1."""
    if missing := missing_programs():
        reason = f"needs a real SLURM, and {', '.join(missing)} is missing; on Debian and Ubuntu: {INSTALL}"
        if os.environ.get("JEPA_REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def slurm() -> None:
    """The programs of SLURM, for tests that start clusters of their own."""
    skip_without_slurm()


@pytest.fixture(scope="session")
def cluster(slurm: None) -> Iterator[LocalCluster]:
    """A real SLURM cluster for what runs with its `environment`: two nodes of four CPUs and two make-believe GPUs."""
    with LocalCluster(nodes=2, cpus=4, gpus=2) as running:
        yield running
