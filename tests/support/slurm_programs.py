"""Whether a real SLURM is installed."""

import os

import pytest

from local_cluster_host import INSTALL, missing_programs


def skip_without_slurm() -> None:
    """Skip the test with a reason; with JEPA_REQUIRE_SLURM=1, fail it."""
    if missing := missing_programs():
        reason = f"needs a real SLURM, and {', '.join(missing)} is missing; on Debian and Ubuntu: {INSTALL}"
        if os.environ.get("JEPA_REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
