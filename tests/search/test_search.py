"""`jepa search`: the same neighbours as a comparison by hand, from every format, with an index, and after a move."""

import base64
import io
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from small_runs import save_untrained

from jepa.checkpoint import Checkpoint, latest
from jepa.embedding.command import main as embed
from jepa.embedding.job import Source, open_job
from jepa.embedding.run import embed_file
from jepa.embedding.settings import EmbedSettings
from jepa.search import index as index_module, model as model_module, run as run_module
from jepa.search.command import main
from jepa.search.nearest import nearest
from jepa.search.stored import open_vectors

CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures of two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(256, size=(30, 20, 20, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        path = folder / CLASSES[number % 2] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_untrained(tmp_path_factory.mktemp("run"), pictures)


@pytest.fixture(scope="module")
def features(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the vectors of all pictures in every format."""
    folder = tmp_path_factory.mktemp("features")
    for ending in ("parquet", "npy", "safetensors"):
        assert embed([str(run), "-o", str(folder / f"{ending}.{ending}"), "compute.precision=fp32"]) == 0
    return folder


def search(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[list[tuple[str, float]]]:
    """Name and similarity of the neighbours of each query."""
    capsys.readouterr()
    assert main([str(one) for one in arguments]) == 0, capsys.readouterr().err
    found: list[list[tuple[str, float]]] = []
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("nearest to"):
            found.append([])
        elif "cosine" not in line:
            _, similarity, *_, name = line.split()
            found[-1].append((name, float(similarity)))
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What `jepa search` says when it cannot do what was asked."""
    capsys.readouterr()
    assert main([str(one) for one in arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_neighbours_are_those_of_a_comparison_by_hand(
    features: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pq.read_table(features / "parquet.parquet")
    vectors = np.array(table["vector"].to_pylist())
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names, row = table["name"].to_pylist(), 7
    similarity = vectors @ vectors[row]
    order = [one for one in np.argsort(-similarity) if one != row][:4]
    expected = [(names[one], pytest.approx(similarity[one], abs=1e-3)) for one in order]
    copy = tmp_path / "elsewhere.png"
    shutil.copy(names[row], copy)
    for ending in ("parquet", "npy", "safetensors"):
        path = features / f"{ending}.{ending}"
        of_row, of_file = search(capsys, path, names[row], copy, "-k", 4)
        assert of_row == expected  # without the row itself
        assert of_file == [(names[row], pytest.approx(1, abs=1e-3)), *expected[:3]]


def test_blocks_of_any_length_have_the_neighbours_of_the_whole() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(500, 6)).astype(np.float32).round(1)  # with equal ones
    vectors[3] = 0
    queries = random.normal(size=(5, 6)).astype(np.float32)
    whole = nearest(queries, [vectors], 20)
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = queries @ vectors.T / np.linalg.norm(queries, axis=1)[:, None] / np.where(lengths > 0, lengths, 1)
    np.testing.assert_allclose(whole.similarity, -np.sort(-cosines, axis=1)[:, :20], atol=1e-5)
    for size in (1, 7, 499):
        parts = nearest(queries, [vectors[first : first + size] for first in range(0, 500, size)], 20)
        np.testing.assert_allclose(parts.similarity, whole.similarity, atol=1e-5)
    assert nearest(queries, [vectors], 900).rows.shape == (5, 500)


def test_the_page_shows_every_neighbour_and_needs_no_other_file(
    features: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    query = pictures / "dog" / "03.png"
    search(capsys, features / "parquet.parquet", query, "-k", 6, "--html", page)
    text = page.read_text()
    shown = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]
    assert len(shown) == 7
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    first = np.asarray(Image.open(io.BytesIO(shown[0])).resize((20, 20), Image.Resampling.BILINEAR), dtype=float)
    original = np.asarray(Image.open(query), dtype=float)
    assert np.corrcoef(first.ravel(), original.ravel())[0, 1] > 0.5
    assert sum(f"</td><td>{label}</td><td>" in text for label in CLASSES) >= 1


def clustered(path: Path, count: int = 3000, spread: float = 0.3) -> NDArray[np.float32]:
    """Write vectors around thirty centres as .parquet, in row groups of 1,000 -> the vectors."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(30, 16))[np.arange(count) % 30] + spread * random.normal(size=(count, 16))
    values = pa.array(vectors.astype(np.float32).ravel())
    columns = {"name": [str(row) for row in range(count)], "vector": pa.FixedSizeListArray.from_arrays(values, 16)}
    pq.write_table(pa.table(columns), path, row_group_size=1000)
    return vectors.astype(np.float32)


def test_an_index_finds_nearly_all_neighbours_and_is_made_once_for_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("faiss")
    path, queries = tmp_path / "a.parquet", [str(row) for row in range(0, 3000, 100)]
    clustered(path)
    exact = search(capsys, path, *queries)
    monkeypatch.setattr(run_module, "EXACT_UP_TO", 2999)
    assert main([str(path), *queries]) == 0
    assert "indexing 3,000 vectors" in capsys.readouterr().err
    about = index_module.read_about(tmp_path / "a.parquet.faiss")
    assert about.recall >= index_module.RECALL
    assert about.read < about.lists / 4
    indexed = search(capsys, path, *queries)
    same = sum(len({*one} & {*other}) for one, other in zip(exact, indexed, strict=True))
    assert same >= 0.98 * 10 * len(queries)
    assert search(capsys, path, *queries, "--exact") == exact
    clustered(path, 3001)  # another file, of which the index knows nothing
    assert main([str(path), "3000"]) == 0
    assert "indexing 3,001 vectors" in capsys.readouterr().err
    clustered(path, 3001, spread=100)
    search(capsys, path, "3000")
    assert main([str(path), "3000"]) == 0
    assert "they lie in no clusters" in capsys.readouterr().err
    monkeypatch.setattr(run_module, "is_installed", lambda: False)
    assert main([str(path), "3000"]) == 0
    assert capsys.readouterr().err == (
        "comparing with all 3,001 vectors; pip install 'openjepa[search]' makes this faster\n"
    )


def test_two_searches_at_once_make_one_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    clustered(tmp_path / "a.parquet")
    (tmp_path / "a.parquet.faiss.killed.partial").touch()
    built, build = [], index_module._build
    monkeypatch.setattr(index_module, "_build", lambda vectors: [build(vectors), built.append(1)][0])
    opened = open_vectors(tmp_path / "a.parquet")
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(index_module.open_index, [opened, opened])
    assert first.about == second.about
    assert len(built) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.parquet", "a.parquet.faiss"}


def test_the_model_is_opened_as_it_was_for_the_vectors(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Overrides from Python are trees; a source may serve several modalities."""
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    changes = [{"data": {"root": data, "max_bad_fraction": 0.5}, "compute": {"precision": "fp32"}}]
    job = open_job(run, EmbedSettings(), changes)
    embed_file(job, tmp_path / "a.parquet")
    data.rename(tmp_path / "moved")
    asked: list[str | None] = []

    def opening(*arguments: Any, modality: str | None = None, **options: Any) -> Source:
        asked.append(modality)
        return open_job(*arguments, modality=modality, **options)

    monkeypatch.setattr(model_module, "open_job", opening)
    ((first, *_),) = search(capsys, tmp_path / "a.parquet", tmp_path / "moved" / "cat" / "00.png")
    assert first == (str(data / "cat" / "00.png"), pytest.approx(1, abs=1e-3))
    assert asked == ["image"]


def test_a_model_that_has_moved_or_other_weights_is_not_taken_for_the_one_that_made_the_vectors(
    run: Path, features: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, query = tmp_path / "moved.parquet", pictures / "cat" / "00.png"
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    assert embed([str(moved), "-o", str(path), "compute.precision=fp32"]) == 0
    moved.rename(tmp_path / "new_place")
    copy = tmp_path / "query.png"
    shutil.copy(query, copy)
    assert "name it with --source" in refused(capsys, path, copy)
    ((first, *_),) = search(capsys, path, copy, "--source", tmp_path / "new_place")
    assert first == (str(query), pytest.approx(1, abs=1e-3))
    checkpoint = Checkpoint.load(latest(run))
    Checkpoint(0, 0.0, checkpoint.config, checkpoint.model, {}).save(latest(tmp_path / "new_place"))
    assert search(capsys, path, copy, "--source", tmp_path / "new_place")[0][0] == first  # equal weights, as of exports
    checkpoint.model["target_encoder.norm.weight"][3] += 0.1
    Checkpoint(3, 1.5, checkpoint.config, checkpoint.model, {}).save(latest(tmp_path / "new_place"))
    error = refused(capsys, path, copy, "--source", tmp_path / "new_place")
    assert f"was made with {moved} at step 3; {tmp_path / 'new_place'} has other weights" in error


def test_names_and_metadata_beside_vectors_are_their_own(
    features: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("f.safetensors", "f.npy"):
        split = "test" if name == "f.npy" else "train"
        assert embed([str(run), "-o", str(tmp_path / name), "--split", split]) == 0  # the first is not overwritten
    train = {facts["name"] for facts in open_vectors(tmp_path / "f.safetensors").facts(range(20)).values()}
    test = {facts["name"] for facts in open_vectors(tmp_path / "f.npy").facts(range(3)).values()}
    assert train.isdisjoint(test)
    listed, query = tmp_path / "f.safetensors.csv", sorted(train)[0]
    header, *rows = listed.read_text().splitlines()
    for wrong in (rows[:-1], [*rows, rows[0]]):
        listed.write_text("\n".join([header, *wrong]))
        expected = f"{listed} has {len(wrong)} rows, and {tmp_path / 'f.safetensors'} has {len(rows)} vectors"
        assert expected in refused(capsys, tmp_path / "f.safetensors", query)
    np.save(tmp_path / "f.npy", np.load(tmp_path / "f.npy")[1:])
    assert "its metadata is of" in refused(capsys, tmp_path / "f.npy", query)


def test_what_cannot_be_searched_is_refused_in_one_sentence(
    features: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, broken, tokens = features / "parquet.parquet", tmp_path / "broken.png", tmp_path / "tokens.npy"
    broken.write_bytes(b"no picture")
    assert embed([str(run), "-o", str(tokens), "--pooling", "tokens"]) == 0
    (tmp_path / "cut.parquet").write_bytes(path.read_bytes()[:-100])
    for arguments, words in (
        ((path, "two red balls"), "sentences need vectors of captioned images"),
        ((path, "nowhere.png"), "neither the name of a row"),
        ((path, "nowhere\udcff.png"), "neither the name of a row"),  # a name that is not UTF-8
        ((path, broken), "cannot be read: not an image"),
        ((tokens, "a"), "holds all tokens of each sample"),
        ((tmp_path / "cut.parquet", "a"), "cut.parquet cannot be read"),
        ((tmp_path / "none.parquet", "a"), "`jepa embed SOURCE DATA -o none.parquet` writes it"),
        ((broken, "a"), f"error: {broken}: allowed are .parquet, .npy and .safetensors"),
        ((path, "a", "-k", "0"), "at least 1 is needed"),
    ):
        assert words in refused(capsys, *arguments)


def test_vectors_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepa.search.stored._BLOCK_BYTES", 700 * 4 * 16)
    vectors = clustered(tmp_path / "a.parquet")
    opened = open_vectors(tmp_path / "a.parquet")
    blocks = list(opened.blocks())
    assert max(map(len, blocks)) <= 700
    np.testing.assert_array_equal(np.concatenate(blocks), vectors)
    np.testing.assert_array_equal(opened.vectors([2999, 5, 1000]), vectors[[5, 1000, 2999]])
