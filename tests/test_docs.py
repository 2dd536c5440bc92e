"""The pages of docs/ that hold programs: every block is run, from top to bottom, as a reader would."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.py)\n")


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of every block."""
    return BLOCK.findall((DOCS / page).read_text())


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment of its own, into which a reader may install, that has what is installed here besides."""
    folder = tmp_path_factory.mktemp("reader")
    venv.create(folder, with_pip=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    ours = [sysconfig.get_path("purelib"), str(DOCS.parent)]  # the second one is what an editable install points at
    (site / "shared.pth").write_text("\n".join(ours) + "\n")
    for command, module in (("jepa", "jepa"), ("pytest", "pytest")):
        program = folder / "bin" / command
        program.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {module} "$@"\n')
        program.chmod(0o755)
    path = f"{folder}/bin{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"}


def run(language: str, text: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a block -> what it said."""
    if named := FILE.match(text):
        (folder / named[1]).write_text(text)
        return ""
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else ["python", "-c", text]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_reader_gets_from_nothing_to_a_trained_encoder(tmp_path: Path, shell: dict[str, str]) -> None:
    said, promised = "", ""
    for language, text in blocks("new_modality.md"):
        if language == "text":
            promised += text
        else:
            said += run(language, text, tmp_path, shell)
    for line in filter(None, promised.splitlines()):
        assert line in said, line
    assert "jepa_tides.modality:TidesTides" not in said
    assert re.search(r"tides +jepa_tides.modality:Tides +jepa-tides 0.1.0", said)
    for run_dir in ("tides", "mine"):
        assert (tmp_path / "runs" / run_dir / "report.html").exists()
    assert "shape/mine:nearest_mean" in (tmp_path / "runs" / "mine" / "results.json").read_text()


def test_the_page_about_the_core_runs(tmp_path: Path) -> None:
    found = [text for language, text in blocks("core.md") if language == "python"]
    assert found
    for text in found:
        subprocess.run([sys.executable, "-W", "error", "-c", text], cwd=tmp_path, check=True, timeout=120)
