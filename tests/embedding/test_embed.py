"""`jepa embed`: names, labels and vectors of every sample in one file, whatever happens on the way."""

import csv
import json
import signal
from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from small_runs import save_untrained

import jepa
from jepa.data import open_split, read_bad_files
from jepa.embedding.command import main

COMMON = ["compute.precision=fp32", "data.max_bad_fraction=0.5", "evaluate.batch_size=4"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures in two classes; one of them cannot be read."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(256, size=(60, 20, 20, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        path = folder / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    (folder / "cat" / "06.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def run_dir(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_untrained(tmp_path_factory.mktemp("run"), pictures)


def embed(run_dir: Path, output: Path, *more: str) -> int:
    return main([str(run_dir), "-o", str(output), *COMMON, *more])


def read(path: Path) -> tuple[dict[str, list[Any]], np.ndarray[Any, Any], dict[str, Any]]:
    """Columns, vectors and metadata of a .parquet file."""
    table = pq.read_table(path)
    vectors = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
    columns = {name: table[name].to_pylist() for name in table.column_names if not name.startswith("vector")}
    return columns, vectors, json.loads(table.schema.metadata[b"jepa"])


def test_every_readable_sample_has_a_row_with_its_name_and_label(
    run_dir: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "features.parquet"
    assert embed(run_dir, output) == 0
    columns, vectors, about = read(output)
    broken = str(pictures / "cat" / "06.png")
    assert sorted(columns["name"]) == sorted(str(path) for path in pictures.rglob("*.png") if str(path) != broken)
    assert columns["label"] == [Path(name).parent.name for name in columns["name"]]
    assert [source for source, _ in read_bad_files(tmp_path / "features.bad.txt")] == [broken]
    assert "1 of 60 cannot be read" in capsys.readouterr().err
    assert (about["rows"], about["bad"]) == (59, 1)
    assert about["vectors"] == {"vector": [24]}
    assert (about["pooling"], about["step"]) == ("mean", 3)
    encoder, modality = jepa.load(run_dir), jepa.load_modality(run_dir)
    samples = open_split(modality, "train")
    row = columns["name"].index(samples.name_of(5))  # type: ignore[attr-defined]
    expected = encoder(modality.evaluation_view(samples[5].inputs).unsqueeze(0)).mean(dim=1)[0]
    torch.testing.assert_close(torch.tensor(vectors[row]), expected, rtol=1e-4, atol=1e-5)
    assert not (tmp_path / "features.parquet.parts").exists()


def test_all_formats_hold_the_same_rows_in_the_same_order(run_dir: Path, tmp_path: Path) -> None:
    for name in ("a.parquet", "b.npy", "c.safetensors"):
        assert embed(run_dir, tmp_path / name, "--pooling", "last4", "--dtype", "float16", "--split", "validation") == 0
    columns, vectors, about = read(tmp_path / "a.parquet")
    assert vectors.dtype == np.float16
    assert vectors.shape[1] == 2 * 24  # the run has two layers
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), vectors)
    with safe_open(tmp_path / "c.safetensors", "np") as file:
        np.testing.assert_array_equal(file.get_tensor("vector"), vectors)
        assert json.loads(file.metadata()["jepa"])["vectors"] == about["vectors"]
    for name in ("b.csv", "c.csv"):
        with (tmp_path / name).open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        assert [row["name"] for row in rows] == columns["name"]
        assert [row["label"] for row in rows] == columns["label"]
    assert json.loads((tmp_path / "b.json").read_text())["rows"] == len(vectors)


def run(folder: Path, arguments: list[str], crash_at: str = "") -> list[str]:
    """Run the command in a folder, perhaps until it is killed -> its file operations."""
    folder.mkdir(exist_ok=True)
    settings = {"CRASH_PROGRAM": "jepa.embedding.command", "CRASH_FOLDER": str(folder), "CRASH_AT": crash_at}
    done = fork_server.run("crash_points", *arguments, cwd=folder, **settings)
    assert done.returncode in ((0, -signal.SIGKILL) if crash_at else (0,)), done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("ending", [".parquet", ".npy"])
def test_a_command_killed_at_file_operations_and_started_again_writes_the_same_bytes(
    ending: str, run_dir: Path, tmp_path: Path
) -> None:
    name, (whole, killed) = f"features{ending}", (tmp_path / "whole", tmp_path / "killed")
    arguments = [str(run_dir), "-o", name, *COMMON, "--save-every", "0"]
    operations = run(whole, arguments)
    kills = 0
    while not (killed / name).exists() or (killed / f"{name}.parts").exists():
        run(killed, arguments, f"main:{2 + 13 * kills}")
        kills += 1
    assert kills > 3, operations
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == {
        path.name: path.read_bytes() for path in killed.iterdir()
    }
