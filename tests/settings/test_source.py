"""A null `data.source` is what `data.root` holds, or the generated data without a root; nothing is guessed."""

from pathlib import Path
from typing import Any

import pytest

from jepa.checkpoint import Checkpoint
from jepa.config import ConfigError, Tree, plain
from jepa.config.recipes import read_recipe
from jepa.launch import resolve
from jepa.settings.recipe import Recipe
from jepa.settings.resolve import resolve_layers
from jepa.weights.load import configured


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data #1"


def with_files(root: Path, names: str) -> None:
    for name in names.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("modality", "files", "source"),
    [
        ("image", "cats/1.JPG dogs/2.png notes.txt labels.csv", "folder"),
        ("image", "train/000.tar val/000.tar size.json", "webdataset"),
        ("video", "run/1.mp4 walk/2.avi run/thumbnail.jpg", "folder"),
        ("video", "train.csv val.csv", "csv"),
        ("video", "000.tar", "webdataset"),
        ("video", "run/1.npy", "npy"),
        ("image-text", "captions.jsonl images/1.png", "folder"),
        ("image-text", "0.tar 0_stats.json", "webdataset"),
        ("image-text", "annotations/captions_train2017.json train2017/1.jpg", "coco"),
        ("image-text", "dataset_flickr8k.json images/1.jpg", "coco"),
    ],
)
def test_the_source_is_what_the_root_holds(root: Path, modality: str, files: str, source: str) -> None:
    with_files(root, files)
    resolved = resolve_layers(modality, Recipe(), [f"data.root={root}"])
    assert resolved.config.data.source == resolved.modality.config.source == source
    assert resolved.notes == (f"data.source={source}, as data.root={root} holds",)
    assert resolve_layers(modality, Recipe(), []).config.data.source == "scenes"
    assert resolve_layers(modality, Recipe(), ["data.source=" + source, f"data.root={root}"]).notes == ()


@pytest.mark.parametrize(
    ("modality", "name", "source"),
    [
        ("image", "photos.tar", "webdataset"),
        ("video", "list.csv", "csv"),
        ("video", "train.txt", "csv"),
        ("image-text", "captions.txt", "folder"),
        ("image-text", "my_captions.tsv", "folder"),
        ("image-text", "dataset_coco.json", "coco"),
    ],
)
def test_a_root_may_be_a_file(root: Path, modality: str, name: str, source: str) -> None:
    with_files(root, name)
    assert resolve(modality, {}, [f"data.root={root / name}"])[0].data.source == source


@pytest.mark.parametrize(
    ("modality", "files", "sentence"),
    [
        ("image", "1.png 0.tar", "holds images (1.png) and tar shards (0.tar), so the source is not plain; set "),
        ("image", "cifar/data.bin", "set data.source: folder for images, webdataset for tar shards, or the name of a"),
        ("video", "a/1.png a/2.png", "set data.source: frames or folder for images"),
        ("video", "a.mp4 list.csv", "set data.source: folder for videos, csv for lists"),
        ("video", ".hidden/a.mp4 b/lists/a.csv", "holds no files of a known source"),
        ("image-text", "a/1.png", "holds no files of a known source"),
        ("image", "", "does not exist"),
    ],
)
def test_an_ambiguous_source_is_refused_with_the_choices(root: Path, modality: str, files: str, sentence: str) -> None:
    with_files(root, files)
    with pytest.raises(ConfigError) as refused:
        resolve(modality, {}, [f"data.root={root}"])
    assert str(refused.value).startswith(f"data: data root {root} ")
    assert sentence in str(refused.value)


def test_default_run_directories_keep_their_names(root: Path) -> None:
    for overrides, name in {
        (): "image-e57b8bfe",
        ("data.source=scenes",): "image-e57b8bfe",
        ("data.source=folder", "data.root=/nowhere"): "image-80beb242",
    }.items():
        assert resolve("image", read_recipe("image"), overrides)[0].run_dir.name == name
    # It has a list of maskings; settings that were added to these later, and stages, do not rename it.
    former = ["optim.optimizer=adamw", "optim.peak_lr=2e-3"]  # the recipe of then
    assert resolve("video", read_recipe("video"), former)[0].run_dir.name == "video-d11398dc"


def test_a_resumed_run_keeps_its_source_although_the_root_has_changed(root: Path) -> None:
    with_files(root, "1.png")
    command: list[Any] = ["image", {}, [f"data.root={root}", "run_dir=run"]]
    config, _ = resolve(*command)
    Path("run").mkdir()
    Path("run/config.yaml").write_text(f"data: {{source: folder, root: '{root}'}}\nrun_dir: run\nmodality: image\n")
    with_files(root, "0.tar")
    assert resolve(*command)[0] == config


@pytest.mark.parametrize(
    ("trained", "files", "overrides", "source"),
    [
        ({}, "0.tar", ["data.root={root}"], "webdataset"),
        ({"source": "scenes"}, "1.png", ["data.root={root}"], "folder"),
        ({"source": "folder", "root": "gone"}, "0.tar", ["data.root={root}"], "webdataset"),
        ({"source": "folder", "root": "gone"}, "0.tar 1.png", ["data.root={root}"], "folder"),
        ({"source": "folder", "root": "gone"}, "0.tar", ["data.root={root}", "data.source=folder"], "folder"),
        ({"source": "folder", "root": "gone"}, "", [], "folder"),
        ({"source": "scenes"}, "", ["data.root={root}"], "does not exist"),
        ({"source": "folder", "root": "gone"}, "", ["data.root={root}"], "does not exist"),
        ({"source": "scenes"}, "0.tar 1.png", ["data.root={root}"], "not plain"),
    ],
)
def test_an_evaluation_on_another_root_finds_its_source_again(
    root: Path, trained: Tree, files: str, overrides: list[str], source: str
) -> None:
    with_files(root, files)
    config = plain(resolve("image", {"data": trained}, [])[0])
    checkpoint = Checkpoint(0, 0.0, config, {}, {})
    layers = [text.format(root=root) for text in overrides]
    if " " in source:
        with pytest.raises(ConfigError, match=source):
            configured(checkpoint, layers)
    else:
        assert configured(checkpoint, layers)[0].data.source == source
