"""`jepa embed`: names, labels and vectors of every sample in one file, whatever happens on the way."""

import csv
import json
import shutil
import signal
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from captioned import TINY
from pairs import SECOND
from PIL import Image
from safetensors import safe_open
from small_runs import save_untrained
from tiny import Noise, NoiseConfig
from torch.utils.data import default_collate

import jepa
from jepa.checkpoint import Checkpoint, latest
from jepa.checkpoint.lock import locked
from jepa.config import plain
from jepa.data import DataError, open_split, read_bad_files
from jepa.embedding.command import main
from jepa.embedding.outputs import Shape, write_output
from jepa.embedding.parts import PartsFolder
from jepa.embedding.rows import Chain, Rows
from jepa.embedding.tables import column_types, tables
from jepa.evaluate.cross_modal.vectors import StreamEncoder, scores
from jepa.launch import resolve
from jepa.model import JEPA
from jepa.probe.network import AttentiveProbe
from jepa.probe.saved import SavedProbe
from jepa.weights.load import configured, model_of, read_checkpoint

COMMON = ["compute.precision=fp32", "compute.device=cpu", "data.max_bad_fraction=0.5", "evaluate.batch_size=4"]


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
    assert [source for source, _ in read_bad_files(tmp_path / "features.parquet.bad.txt")] == [broken]
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
    found = jepa.embed(run_dir, overrides=COMMON)
    assert np.array_equal(found.vectors, vectors)
    assert found.columns == columns
    assert [source for source, _ in found.bad] == [broken]
    with pytest.raises(DataError, match=r"1 of 60 samples cannot be read, more than data.max_bad_fraction=0.0 allows"):
        jepa.embed(run_dir, overrides=[*COMMON, "data.max_bad_fraction=0"])


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
    for name in ("b.npy.csv", "c.safetensors.csv"):
        with (tmp_path / name).open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        assert [row["name"] for row in rows] == columns["name"]
        assert [row["label"] for row in rows] == columns["label"]
    assert json.loads((tmp_path / "b.npy.json").read_text())["rows"] == len(vectors)


def run(folder: Path, arguments: list[str], crash_at: str = "") -> list[str]:
    """Run the command in a folder, perhaps until it is killed -> its file operations."""
    folder.mkdir(exist_ok=True)
    settings = {"CRASH_PROGRAM": "jepa.embedding.command", "CRASH_FOLDER": str(folder), "CRASH_AT": crash_at}
    done = fork_server.run("crash_points", *arguments, cwd=folder, **settings)
    assert done.returncode in ((0, -signal.SIGKILL) if crash_at else (0,)), done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("every", [13, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("ending", [".parquet", ".npy"])
def test_a_command_killed_at_file_operations_and_started_again_writes_the_same_bytes(
    ending: str, every: int, run_dir: Path, tmp_path: Path
) -> None:
    name, (whole, killed) = f"features{ending}", (tmp_path / "whole", tmp_path / "killed")
    arguments = [str(run_dir), "-o", name, *COMMON, "--save-every", "0"]
    operations = run(whole, arguments)
    kills = 0
    while not (killed / name).exists() or (killed / f"{name}.parts").exists():
        run(killed, arguments, f"main:{2 + every * kills}")
        kills += 1
    assert kills > 3, operations
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == {
        path.name: path.read_bytes() for path in killed.iterdir()
    }


def test_several_processes_write_the_same_bytes(run_dir: Path, tmp_path: Path) -> None:
    names, common = ("one.npy", "two.npy"), [*COMMON, "--save-every", "0"]
    assert main([str(run_dir), "-o", str(tmp_path / names[0]), *common]) == 0
    done = fork_server.run_group(2, "jepa.embedding.command", str(run_dir), "-o", str(tmp_path / names[1]), *common)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / names[0]).read_bytes() == (tmp_path / names[1]).read_bytes()
    assert (tmp_path / "one.npy.csv").read_bytes() == (tmp_path / "two.npy.csv").read_bytes()
    assert not (tmp_path / "two.npy.parts").exists()


def test_what_changed_since_the_start_is_refused(
    run_dir: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A start that fails in the middle, here by its limit of bad files, leaves parts that other settings do not fit."""
    data, output = tmp_path / "data", tmp_path / "features.parquet"
    shutil.copytree(pictures, data)

    def refused(*more: str, run: Path = run_dir) -> str:
        assert main([str(run), str(data), "-o", str(output), *COMMON, *more]) == 1
        return " ".join(capsys.readouterr().err.split())

    assert "1 of 60 samples cannot be read, more than data.max_bad_fraction=0.0" in refused("data.max_bad_fraction=0")
    assert (tmp_path / "features.parquet.bad.txt").exists()
    with locked(PartsFolder(output).path):
        busy = refused()
    assert f"{output} is being written by process" in busy
    assert "choose another output" in busy
    assert "with other settings: pooling (mean there, last4 now)" in refused("--pooling", "last4")
    other = save_untrained(tmp_path / "other", pictures)
    checkpoint = torch.load(other / "checkpoints" / "latest.pt", weights_only=True)
    checkpoint["model"]["target_encoder.norm.weight"][3] += 0.1
    torch.save(checkpoint, other / "checkpoints" / "latest.pt")
    assert "source.weights (" in refused(run=other)
    (data / "dog" / "99.png").write_bytes((data / "dog" / "01.png").read_bytes())
    assert "samples.train (" in refused()
    assert embed(run_dir, output, f"data.root={data}", "--overwrite") == 0
    assert "exists; choose another output, or add --overwrite" in refused()
    assert "allowed are .parquet, .npy, .safetensors" in refused("-o", str(tmp_path / "features.txt"))
    assert "give seconds, such as 2.5s, or frames" in refused("--window", "4")
    assert "modality image have no windows; videos have" in refused("--window", "4s")


def test_a_command_killed_after_its_output_was_written_is_no_excuse_for_another(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "features.parquet"
    with monkeypatch.context() as patched:
        patched.setattr(PartsFolder, "remove", lambda self: None)
        assert embed(run_dir, output) == 0
    assert (tmp_path / "features.parquet.parts" / "joined.json").exists()
    (tmp_path / "features.parquet.parts" / "settings.json").unlink()  # removed before joined.json is
    before = output.stat()
    assert embed(run_dir, output, "--pooling", "last4") == 1
    assert "pooling (mean there, last4 now)" in " ".join(capsys.readouterr().err.split())
    shutil.copytree(tmp_path / "features.parquet.parts", tmp_path / "copy")
    assert embed(run_dir, output) == 0
    assert output.stat() == before
    shutil.copytree(tmp_path / "copy", tmp_path / "features.parquet.parts")
    assert embed(run_dir, output, "--pooling", "last4", "--overwrite") == 0
    assert read(output)[1].shape == (59, 48)
    assert not (tmp_path / "features.parquet.parts").exists()


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_the_number_of_processes_is_checked(count: str, run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        embed(run_dir, Path("features.npy"), f"--processes={count}")
    assert "is neither a number from 1 on nor auto" in " ".join(capsys.readouterr().err.split())


def test_what_a_command_reads_is_no_output(
    run_dir: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.npy"
    weights.write_bytes(latest(run_dir).read_bytes())
    before = weights.read_bytes()
    assert main([str(weights), str(pictures), "-o", str(weights), "--overwrite", *COMMON]) == 1
    assert "would be replaced, but this command reads it" in " ".join(capsys.readouterr().err.split())
    assert weights.read_bytes() == before


def video_run(folder: Path) -> tuple[Path, Path]:
    """A run on videos of 4 frames, and a folder with arrays of 11 and 3 frames and a broken one."""
    data = folder / "videos"
    data.mkdir()
    for name, frames in (("long", 11), ("short", 3)):
        pixels = np.random.default_rng(frames).integers(256, size=(frames, 16, 16, 3), dtype=np.uint8)
        np.save(data / f"{name}.npy", pixels)
    (data / "odd.npy").write_bytes(b"no array")
    settings = ["data.source=npy", f"data.root={data}", "data.frames=4", "data.image_size=16", "data.patch_size=8"]
    settings += ["data.stored_fps=2", "model.size={width: 24, depth: 1, heads: 2}", f"run_dir={folder / 'run'}"]
    settings += ["data.masking=[{kind: random}]"]
    return save(settings, "video", folder / "run"), data


def save(settings: list[str], name: str, run: Path) -> Path:
    """A run directory with a checkpoint of initial weights."""
    config, modality = resolve(name, {}, settings)
    model = JEPA(config.model, modality, config.target_kinds)
    Checkpoint(3, 1.5, plain(config), model.state_dict(), {}).save(latest(run))
    return run


def test_windows_slide_along_videos_to_their_ends(tmp_path: Path) -> None:
    run, data = video_run(tmp_path)
    assert embed(run, tmp_path / "windows.parquet", "--window", "2s", "--stride", "3f") == 1
    assert embed(run, tmp_path / "windows.parquet", "--window", "2s", "--stride", "1.5s") == 0
    columns, vectors, about = read(tmp_path / "windows.parquet")
    rows = list(zip((Path(name).stem for name in columns["name"]), columns["start"], columns["end"], strict=True))
    assert rows == [("long", 0, 2), ("long", 1.5, 3.5), ("long", 3, 5), ("long", 3.5, 5.5), ("short", 0, 1.5)]
    assert (about["window"], about["stride"], about["bad"]) == ("2s", "1.5s", 1)
    encoder, modality = jepa.load(run), jepa.load_modality(run)
    pixels = torch.from_numpy(np.load(data / "long.npy")).permute(0, 3, 1, 2)
    clip = modality.evaluation_view(pixels[3:7])  # frames 3 to 6 are the window from 1.5 s on
    torch.testing.assert_close(torch.tensor(vectors[1]), encoder(clip.unsqueeze(0)).mean(1)[0], rtol=1e-4, atol=1e-5)
    assert embed(run, tmp_path / "frames.parquet", "--window", "4f", "--stride", "3f") == 0
    assert np.array_equal(read(tmp_path / "frames.parquet")[1], vectors)


def test_an_attentive_probe_pools_what_it_classifies_from_tokens_averaged_as_in_its_training(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = AttentiveProbe(24, 2, 1)
    saved = SavedProbe(dict(probe.state_dict()), probe.heads, ("cat", "dog"), grid=(4, 4), averaged=(2, 2))
    saved.save(tmp_path / "probe.pt")
    options = ["--pooling", "attentive", "--probe", str(tmp_path / "probe.pt"), "--split", "test"]
    assert embed(run_dir, tmp_path / "attentive.npy", *options) == 0
    assert embed(run_dir, tmp_path / "tokens.npy", "--pooling", "tokens", "--split", "test") == 0
    tokens, pooled = (torch.from_numpy(np.load(tmp_path / f"{name}.npy")) for name in ("tokens", "attentive"))
    assert tokens.shape[1:] == (16, 24)
    means = tokens.unflatten(1, (2, 2, 2, 2)).mean(dim=(2, 4)).flatten(1, 2)
    torch.testing.assert_close(probe.classifier(pooled), probe(means), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(probe.classifier(pooled), saved.logits(tokens), rtol=1e-4, atol=1e-5)
    capsys.readouterr()
    replace(saved, grid=(2, 8)).save(tmp_path / "probe.pt")
    assert embed(run_dir, tmp_path / "other.npy", *options) == 1
    assert "trained on a grid of 2 x 8 tokens; here it is 4 x 4" in " ".join(capsys.readouterr().err.split())


def test_both_of_two_matching_streams_are_embedded_so_that_inner_products_compare_them(tmp_path: Path) -> None:
    run = save([f"run_dir={tmp_path / 'run'}"], "pairs:Pairs", tmp_path / "run")
    options = ["--split", "train", "data.bad=[]", "compute.precision=fp32"]
    assert main([str(run), "-o", str(tmp_path / "pairs.parquet"), *options]) == 0
    table = pq.read_table(tmp_path / "pairs.parquet")
    first, second = (torch.tensor(np.stack(table[name].to_numpy())) for name in ("vector", f"vector_{SECOND.name}"))
    assert table["text"][1].as_py() == "<b>train 1</b> & 0"
    config, modality = configured(read_checkpoint(run))
    encoder = StreamEncoder(model_of(read_checkpoint(run), config, modality), modality)  # type: ignore[arg-type]
    samples = modality.dataset("train")
    views = default_collate([modality.evaluation_view(samples[index].inputs) for index in range(5)])
    expected = scores(encoder.encode(views, 0), encoder.encode(views, 1), "predicted")
    torch.testing.assert_close(first[:5] @ second[:5].T, expected, rtol=1e-4, atol=1e-5)
    assert main([str(run), "-o", str(tmp_path / "words.npy"), "--stream", SECOND.name, *options]) == 0
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "words.npy")), second)


def test_images_without_captions_are_embedded_alone(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = [one for one in TINY if not one.startswith("data.")]
    run = save([*networks, f"run_dir={tmp_path / 'run'}"], "image-text", tmp_path / "run")
    output, plain_images = tmp_path / "images.parquet", [str(pictures), "data.source=images"]
    assert embed(run, output, *plain_images, "--stream", "image") == 0
    columns, vectors, _ = read(output)
    assert set(columns["label"]) == {"cat", "dog"}
    model: Any = jepa.load(run)
    expected = model.encode_image(columns["name"][:3])
    torch.testing.assert_close(torch.tensor(vectors[:3]), expected, rtol=1e-4, atol=1e-5)
    assert embed(run, tmp_path / "both.parquet", *plain_images) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert {reason for _, reason in read_bad_files(tmp_path / "both.parquet.bad.txt")} <= {
        "it has no text; --stream image embeds what it has",
        "not an image of a known format",
    }


def test_padding_is_left_out_of_means_and_marked_among_tokens(tmp_path: Path) -> None:
    model = ["model.size={width: 24, depth: 2, heads: 2}", "model.predictor={width: 16, depth: 2, heads: 2}"]
    run = save([f"run_dir={tmp_path / 'run'}", *model], "tiny:PaddedNoise", tmp_path / "run")
    for pooling in ("mean", "tokens"):
        options = ["--pooling", pooling, "--split", "train", "compute.precision=fp32"]
        assert main([str(run), "-o", str(tmp_path / f"{pooling}.npy"), *options]) == 0
    means, tokens = np.load(tmp_path / "mean.npy"), np.load(tmp_path / "tokens.npy")
    assert np.isnan(tokens).any()
    np.testing.assert_allclose(np.nanmean(tokens, axis=1), means, rtol=1e-4, atol=1e-5)
    assert (tmp_path / "mean.npy.csv").read_text().splitlines()[1] == "train[0],,train"


class Numbered:
    """Samples of which only the number is needed."""

    def __len__(self) -> int:
        return 40_000


@pytest.mark.parametrize("ending", [".parquet", ".npy"])
def test_joining_needs_a_part_of_the_memory_that_the_vectors_take(ending: str, tmp_path: Path) -> None:
    parts, samples, size = PartsFolder(tmp_path / f"features{ending}"), Numbered(), 4_000
    rows = Rows(Noise(NoiseConfig()), Chain([("train", samples)]), ())  # type: ignore[list-item]
    for first in range(0, len(samples), size):
        arrays = {"rows": np.arange(first, first + size), "labels": np.empty((size, 0))}
        arrays["vector"] = np.full((size, 192), first, np.float32)
        parts.write(first, first + size, {"texts": [""] * size, "bad": []}, arrays)
    shape = Shape(len(samples), {"vector": (192,)}, "float32")
    tracemalloc.start()
    joined = tables(rows, parts.contents(), 2**12)
    written = write_output(parts.output, shape, {}, column_types(rows), joined, parts.path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000 * 192 * 4 / 2
    stored = np.load(written[-1]) if ending == ".npy" else read(written[-1].rename(parts.output))[1]
    assert (stored[:, 5] == np.arange(40_000) // size * size).all()
