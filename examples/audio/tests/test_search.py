"""`jepa search` with a modality that reads no files but those of its data set."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from jepa.checkpoint import Checkpoint, latest
from jepa.config import plain
from jepa.embedding.job import open_job
from jepa.embedding.run import embed_file
from jepa.embedding.settings import EmbedSettings
from jepa.launch import resolve
from jepa.model import JEPA
from jepa.search.command import main
from jepa.search.stored import open_vectors
from jepa_audio.waves import write_wave


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Noise in two class folders of each split."""
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("a/0", "a/1", "b/0", "b/1"):
            path = tmp_path / "sounds" / split / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_wave(path, random.integers(-9999, 9999, 14000).astype(np.int16), 16000)
    return tmp_path / "sounds"


@pytest.fixture
def features(sounds: Path, tmp_path: Path) -> Path:
    """Vectors of an untrained encoder."""
    size = ("model.size={width: 24, depth: 1, heads: 2}", "model.predictor={width: 16, depth: 1, heads: 2}")
    settings = (*size, f"data.root={sounds}", f"run_dir={tmp_path / 'run'}", "compute.workers=0")
    config, modality = resolve("jepa_audio.modality:Audio", {}, settings)
    model = JEPA(config.model, modality, config.target_kinds)
    (tmp_path / "run").mkdir()
    Checkpoint(1, 1.0, plain(config), model.state_dict(), {}).save(latest(tmp_path / "run"))
    embed_file(open_job(tmp_path / "run", EmbedSettings(split="test"), ()), tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


def test_the_page_shows_recordings_of_the_data_and_says_which_it_cannot(
    sounds: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, page = open_vectors(features).facts([0])[0]["name"], tmp_path / "page.html"
    command = [str(features), name, "--html", str(page)]
    assert main(command) == 0, capsys.readouterr().err
    assert page.read_text().count("data:image/png;base64,") == 4
    (sounds / "test" / "b" / "1.wav").write_bytes(b"broken")
    (sounds / "test" / "b" / "0.wav").unlink()
    capsys.readouterr()
    assert main(command) == 0
    assert "2 of 4 pictures cannot be shown" in " ".join(capsys.readouterr().err.split())
    assert page.read_text().count("data:image/png;base64,") == 2


def test_a_file_that_is_no_row_is_refused_in_one_sentence(
    sounds: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.wav"
    shutil.copy(sounds / "test" / "a" / "0.wav", other)
    assert main([str(features), str(other)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"'{other}' is not the name of a row of {features}, and Audio has no method stored_input" in error
