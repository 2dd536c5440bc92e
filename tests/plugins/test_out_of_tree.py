"""Packages of other people: wheels in a separate environment that does not contain the repository."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import venv
import wave
from pathlib import Path

import pytest
import torch
from places import ROOT

from jepa.checkpoint import Checkpoint, latest
from jepa.cluster.status import statuses
from jepa.training.log import read_metrics
from local_cluster import LocalCluster
from local_cluster_host import wait_until

SETTINGS = [
    "steps=60", "log_every=1", "checkpoint_every=20", "optim.batch_size=8", "compute.precision=fp32",
    "model.size={width: 48, depth: 2, heads: 2}", "model.predictor={width: 32, depth: 1, heads: 2}",
    "data.source=folder", "evaluate.low_shot_draws=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with the wheels of the project and of the examples, and what they depend on."""
    folder = tmp_path_factory.mktemp("stranger")
    wheels, environment = folder / "wheels", folder / "environment"
    venv.create(environment)
    program = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    sources = [str(ROOT), str(ROOT / "examples" / "audio"), str(ROOT / "examples" / "time_series")]
    subprocess.run([*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", str(wheels), *sources], check=True)
    install = [*pip, "--python", str(program), "install", "--no-deps", *map(str, sorted(wheels.glob("*.whl")))]
    subprocess.run(install, check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files are not followed
    return program


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wav files of two classes in the folders of three splits."""
    folder = tmp_path_factory.mktemp("tones")
    for split, count in {"train": 16, "validation": 6, "test": 6}.items():
        for number in range(count):
            place = folder / split / ("low", "high")[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            generator = torch.Generator().manual_seed(number)
            pitch = (200, 900)[number % 2] * (1 + 0.1 * torch.rand((), generator=generator))
            tone = torch.sin(2 * torch.pi * pitch * torch.arange(24_000) / 16_000)
            noisy = 0.5 * tone + 0.1 * torch.randn(24_000, generator=generator)
            with wave.open(str(place / f"{number:02}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(16_000)
                file.writeframes((noisy.clamp(-1, 1) * 32_767).to(torch.int16).numpy().tobytes())
    return folder


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def jepa(python: Path, folder: Path, *command: str, **more: str) -> str:
    """Run a command in an empty folder -> what it printed."""
    done = subprocess.run(
        [str(python), *command], cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def launch(run_dir: Path, tones: Path, *more: str) -> list[str]:
    settings = [*SETTINGS, f"data.root={tones}", *more]
    return ["-m", "jepa.launch", "--modality", "audio", "--run-dir", str(run_dir), *settings]


COMMANDS = """
import sys
from jepa.__main__ import main
for command in ("modalities", "launch --modality time-series --dry-run steps=7"):
    sys.argv = ["jepa", *command.split()]
    assert main() == 0
"""


def test_installed_packages_are_listed_from_where_they_are_and_contain_their_recipes(
    python: Path, tmp_path: Path
) -> None:
    printed = jepa(python, tmp_path, "-c", COMMANDS)
    listed, time_series = printed.split("modality: time-series", 1)
    assert "\nsteps: 7\n" in time_series
    for name, package in (("audio", "openjepa-audio"), ("time-series", "openjepa-time-series"), ("image", "openjepa")):
        line = next(line for line in listed.splitlines() if line.split()[:1] == [name])
        assert f" {package} 0.1.0 " in line
        assert str(python.parent.parent) in line
    assert str(ROOT) not in listed


def test_audio_trains_and_is_evaluated(python: Path, tones: Path, tmp_path: Path) -> None:
    jepa(python, tmp_path, *launch(tmp_path / "run", tones))
    row = json.loads((tmp_path / "run" / "results.json").read_text())["tasks"]["class/linear"]
    assert {"jepa", "random_init", "raw_input", "chance"} <= set(row)
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.soak
def test_audio_is_killed_resumes_and_is_evaluated_again(python: Path, tones: Path, tmp_path: Path) -> None:
    jepa(python, tmp_path, *launch(tmp_path / "whole", tones, "evaluate.enabled=false", "evaluate.report=false"))
    command = [str(python), *launch(tmp_path / "run", tones)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL) as started:
        wait_until(lambda: len(read_metrics(tmp_path / "run")) >= 10, 120, lambda: "it does not train")
        started.send_signal(signal.SIGTERM)
    assert started.returncode == 130
    assert 10 <= Checkpoint.load(latest(tmp_path / "run")).step < 60
    jepa(python, tmp_path, *launch(tmp_path / "run", tones))
    whole, resumed = (Checkpoint.load(latest(tmp_path / name)).model for name in ("whole", "run"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert "class/linear" in jepa(python, tmp_path, "-m", "jepa", "evaluate", str(tmp_path / "run"), "--task", "class")


def test_a_job_runs_the_python_of_the_environment(
    python: Path, tones: Path, tmp_path: Path, cluster: LocalCluster, profile: str
) -> None:
    submitted = launch(tmp_path / "run", tones, "--slurm", profile, "--slurm-dry-run")
    script = Path(jepa(python, tmp_path, *submitted, **cluster.environment).split()[-1])
    assert f"{python} " in script.read_text()


@pytest.mark.soak
def test_audio_is_submitted_to_slurm(
    python: Path, tones: Path, tmp_path: Path, cluster: LocalCluster, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    jepa(python, tmp_path, *launch(run_dir, tones, "--slurm", profile), **cluster.environment)
    for key, value in cluster.environment.items():
        monkeypatch.setenv(key, value)
    deadline = time.monotonic() + 180
    while statuses([run_dir])[0].is_active and time.monotonic() < deadline:
        time.sleep(0.5)
    ended = statuses([run_dir])[0]
    assert (ended.state, ended.step) == ("FINISHED", 60), (ended, ended.log.read_text() if ended.log.exists() else "")
    assert (run_dir / "results.json").exists()
