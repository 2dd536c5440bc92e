"""Pages: their programs run from top to bottom, as a reader would run them, and the names in them exist."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import pytest
from doc_names import unknown_names
from PIL import Image
from places import ROOT, SUPPORT

from jepa import launch
from jepa.__main__ import COMMANDS

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.py)\n")
PATTERNS = ("*.md", "docs/*.md", "examples/*/*.md", "benchmarks/*.md", "benchmarks/results/*.md")
PAGES = [page for pattern in PATTERNS for page in sorted(ROOT.glob(pattern))]


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of every block."""
    return BLOCK.findall((ROOT / "docs" / page).read_text())


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A reader's virtual environment: what is installed here, the project, and what the page installs.

    Its commands `jepa` and `pytest` start in the fork server.
    """
    folder = tmp_path_factory.mktemp("reader")
    venv.create(folder)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (site / "shared.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    forked = f"{SUPPORT / 'forked.py'}"
    for command, start in {"jepa": f"{forked} jepa", "pytest": f"{forked} pytest", "pip": "-m pip"}.items():
        program = folder / "bin" / command
        program.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" {start} "$@"\n')
        program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}/bin{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # it is "0" that takes hatchling from here instead of downloading it
    }


def run(language: str, text: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a block -> what it printed."""
    if named := FILE.match(text):
        (folder / named[1]).write_text(text)
        return ""
    if language == "bash":
        command = ["bash", "-euo", "pipefail", "-c", text]
    else:
        (folder / "block.py").write_text(text)
        command = ["python", str(SUPPORT / "forked.py"), "block.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


QUICK = "steps=4 optim.batch_size=8 evaluate.low_shot_draws=1"
QUICK += " evaluate.train_samples=48 evaluate.validation_samples=24 evaluate.test_samples=24"


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.soak, id="as_written")])
def test_the_page_on_custom_modalities_runs(quick: bool, tmp_path: Path, shell: dict[str, str]) -> None:
    printed, promised = "", ""
    for language, text in blocks("new_modality.md"):
        if language == "text":
            promised += text
        else:
            if quick:
                text = text.replace("runs/tides\n", f"runs/tides {QUICK}\n").replace(
                    "runs/mine steps=100", f"runs/mine {QUICK}"
                )
            printed += run(language, text, tmp_path, shell)
    for line in filter(None, promised.splitlines()):
        assert line in printed, line
    assert "jepa_tides.modality:TidesTides" not in printed
    assert re.search(r"tides +jepa_tides.modality:Tides +jepa-tides 0.1.0", printed)
    for run_dir in ("tides", "mine"):
        assert (tmp_path / "runs" / run_dir / "report.html").exists()
    assert "shape/mine:nearest_mean" in (tmp_path / "runs" / "mine" / "results.json").read_text()


def test_the_page_on_adapting_networks_runs(tmp_path: Path, shell: dict[str, str]) -> None:
    printed = ""
    for language, text in blocks("adapt.md"):
        if language == "text":
            assert text in printed
        else:
            printed = run(language, text, tmp_path, shell)
    ends = {name: json.loads(ends) for name, ends in re.findall(r"^(source|adapted) (\[.*\])$", printed, re.MULTILINE)}
    (untrained, trained), (first, _) = ends["source"], ends["adapted"]
    assert abs(first - trained) < 0.3 * abs(untrained - trained)


def test_the_page_on_the_core_runs(tmp_path: Path) -> None:
    found = [text for language, text in blocks("core.md") if language == "python"]
    assert found
    for text in found:
        (tmp_path / "block.py").write_text(f"import warnings\nwarnings.simplefilter('error')\n{text}")
        done = fork_server.run("block.py", cwd=tmp_path)
        assert done.returncode == 0, f"{text}\n{done.stderr}"


def test_the_page_on_vectors_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(256, size=(24, 12, 20, 20, 3), dtype=np.uint8)
    for number, frames in enumerate(noise):
        first, *others = map(Image.fromarray, frames)
        for folder in (Path("photos", ("cat", "dog")[number % 2]), Path("videos")):
            folder.mkdir(parents=True, exist_ok=True)
        first.save(f"photos/{('cat', 'dog')[number % 2]}/{number:02}.png")
        first.save(f"videos/{number}.gif", save_all=True, append_images=others, duration=500)
    Path("videos.csv").write_text("".join(f"videos/{number}.gif {number % 2}\n" for number in range(len(noise))))
    tiny = ["data.image_size=16", "data.patch_size=8", "model.size={width: 12, depth: 1, heads: 2}", "steps=1"]
    tiny += ["model.predictor={width: 12, depth: 1, heads: 2}", "optim.batch_size=4", "compute.workers=0"]
    tiny += ["evaluate.enabled=false", "evaluate.report=false"]
    for modality, run_dir, root in (("image", "demo", "photos"), ("video", "clips", "videos.csv")):
        more = ["data.frames=4", "data.masking=[{kind: random}]"] * (modality == "video")
        arguments = ["--modality", modality, "--run-dir", f"runs/{run_dir}", f"data.root={root}", *tiny, *more]
        assert launch.main(arguments) == 0
    page: dict[str, Any] = {}
    for language, text in blocks("embed.md"):
        if language == "python":
            exec(text, page)
        for line in text.splitlines() if language == "bash" else ():
            _, command, *words = shlex.split(line)
            module, _, function = COMMANDS[command][0].partition(":")
            words += ["evaluate.attentive_steps=2"] * (command == "evaluate")
            assert getattr(importlib.import_module(module), function)(words) == 0, line
    assert all("data:image" in Path(page).read_text() for page in ("neighbours.html", "moments.html"))


def test_the_page_on_weights_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks("weights.md")
    names: dict[str, Any] = {}
    for text in [text for language, text in found if language == "python"][1:]:  # the first names a released file
        exec(text, names)
    printed = capsys.readouterr().err
    for text in [text for language, text in found if language == "text"]:
        assert text in printed


def test_the_encoder_of_the_readme_loads(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["data.source=folder", f"data.root={photos}", "data.image_size=16", "data.patch_size=8"]
    settings += ["model.size={width: 12, depth: 1, heads: 2}", "model.predictor={width: 12, depth: 1, heads: 2}"]
    settings += ["steps=1", "optim.batch_size=4", "evaluate.enabled=false", "evaluate.report=false"]
    assert launch.main(["--modality", "image", "--run-dir", "runs/demo", *settings]) == 0
    found = [text for language, text in BLOCK.findall((ROOT / "README.md").read_text()) if language == "python"]
    assert found
    for text in found:
        exec(text, {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_names_settings_and_recipes_on_a_page_exist(page: Path) -> None:
    assert unknown_names(page) == []


def test_every_result_is_linked_by_a_page() -> None:
    text = "".join(page.read_text() for page in PAGES if page.parent.name != "results")
    results = {path.stem for path in (ROOT / "benchmarks" / "results").iterdir()}
    assert {stem for stem in results if f"benchmarks/results/{stem}." not in text} == set()
