"""Which folders become splits and classes, what is passed over, and what the lines at the start of a run say of it."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from pictures import write_images

from jepa.data.summary import summary_lines
from jepa.modality import Split
from modalities.image.config import ImageConfig
from modalities.image.modality import Image
from modalities.image.sources import EVIDENCE, open_source
from modalities.storage.folders import FileKind, open_folder
from modalities.storage.sources import infer_source

FRAMES = FileKind("folders of frames", (".png",), whole_folders=True)
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
CLASSES = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(20)]


def paths(root: Path, split: Split) -> list[str]:
    samples = open_source("folder", root, split, min_side=4).samples
    return [str((samples.folder / path).relative_to(root)) for path in samples.paths]  # type: ignore[attr-defined]


def classes(root: Path) -> tuple[str, ...]:
    return open_source("folder", root, "train", min_side=4).classes


def lines(root: Path, *splits: Split) -> str:
    modality = Image(ImageConfig(source="folder", root=root, image_size=32))
    return "\n".join(summary_lines(modality, splits or ("train",)))


@pytest.mark.parametrize("prefix", ["photos", "ILSVRC/Data/CLS-LOC"])
def test_a_root_some_levels_too_high_has_the_splits_and_classes_that_lie_below(prefix: str, tmp_path: Path) -> None:
    write_images(tmp_path, [f"{prefix}/{split}/{file}" for split in ("train", "test") for file in CLASSES])
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "notes.xml").touch()
    assert classes(tmp_path) == ("cat", "dog")
    assert paths(tmp_path, "test") == [f"{prefix}/test/{file}" for file in sorted(CLASSES)]
    assert f"in 2 classes (cat, dog) below {tmp_path / prefix / 'train'}" in lines(tmp_path)


@pytest.mark.parametrize("folders", [("seg_train/seg_train", "seg_test/seg_test"), ("train/images", "val/images")])
def test_each_split_may_have_one_more_folder_above_its_classes(folders: tuple[str, str], tmp_path: Path) -> None:
    write_images(tmp_path, [f"{folder}/{file}" for folder in folders for file in CLASSES])
    write_images(tmp_path, ["seg_pred/1.png"])
    assert classes(tmp_path) == ("cat", "dog")
    assert paths(tmp_path, "test") == [f"{folders[1]}/{file}" for file in sorted(CLASSES)]
    assert "passed over: the folder seg_pred" in lines(tmp_path)


def test_a_single_folder_without_structure_changes_nothing(tmp_path: Path) -> None:
    write_images(tmp_path, [f"all/{i}.png" for i in range(30)])
    assert classes(tmp_path) == ()
    assert paths(tmp_path, "train") == sorted(f"all/{i}.png" for i in range(30))
    assert lines(tmp_path) == (
        f"train: 30 images without classes below {tmp_path}; a tenth of them each is also used for validation and test"
    )


def test_a_few_files_beside_class_folders_are_passed_over_and_named(tmp_path: Path) -> None:
    splits = [f"{split}/{file}" for split in ("train", "val", "test") for file in CLASSES]
    write_images(tmp_path, [*splits, "train/logo.png", "val/logo.png", "logo.png"])
    (tmp_path / "train" / "cat" / "photo.XCF").touch()
    (tmp_path / "train" / "README").touch()
    assert classes(tmp_path) == ("cat", "dog")
    assert [len(paths(tmp_path, split)) for split in SPLITS] == [40, 40, 40]
    train, validation, _ = lines(tmp_path, *SPLITS).split("\n")
    assert train == (
        f"train: 40 images in 2 classes (cat, dog) below {tmp_path / 'train'}; passed over: 1 .xcf, "
        "1 beside the class folders, such as logo.png, 1 beside the splits, 1 without ending"
    )
    assert validation.endswith("passed over: 1 beside the class folders, such as logo.png, 1 beside the splits")


@pytest.mark.parametrize("strays", [10, 11, 300])
def test_many_files_beside_folders_leave_a_set_unlabelled_with_a_note(strays: int, tmp_path: Path) -> None:
    names = [f"{name}/{i}.png" for name in ("a", "b") for i in range(150)]
    for name in [*names, *(f"{i}.png" for i in range(strays))]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    labelled = strays <= 10
    assert classes(tmp_path) == (("a", "b") if labelled else ())
    assert (f"{strays} images lie beside the folders a, b, which are therefore" in lines(tmp_path)) != labelled


def test_a_held_out_split_without_class_folders_is_an_error(tmp_path: Path) -> None:
    write_images(tmp_path, [*(f"train/{file}" for file in CLASSES), *(f"val/{i}.png" for i in range(20))])
    with pytest.raises(
        ValueError,
        match=r"val/0\.png is not one of the class folders of .*train: cat, dog; move it, or set data.labels=none",
    ):
        paths(tmp_path, "test")


def test_run_directories_and_sweeps_are_not_data(tmp_path: Path) -> None:
    runs = ["runs/demo/figures/curve.png", "sweep/sweep.png", "cat/run/figures/1.png"]
    write_images(tmp_path, [*CLASSES, *runs, "cat/run2/1.png"])
    for name in ("runs/demo/config.yaml", "runs/demo/report.html", "sweep/sweep.json", "cat/run2/config.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "new").mkdir()
    for name in ("cat/run/config.yaml", "cat/run/metrics.jsonl", "new/lock"):
        (tmp_path / name).touch()
    assert classes(tmp_path) == ("cat", "dog")
    used = {path for split in SPLITS for path in paths(tmp_path, split)}
    assert used == {*CLASSES, "cat/run2/1.png"}
    assert (
        "passed over: 1 .yaml, the run directory cat/run, the run directory new, the run directory runs/demo"
        in lines(tmp_path)
    )
    write_images(tmp_path / "shards", ["runs/demo/figures/curve.png"])
    for name in ("runs/demo/config.yaml", "runs/demo/metrics.jsonl", "0.tar"):
        (tmp_path / "shards" / name).touch()
    assert infer_source(tmp_path / "shards", EVIDENCE) == "webdataset"


def test_what_is_held_out_is_reported(tmp_path: Path) -> None:
    write_images(tmp_path, CLASSES)
    sizes = {split: len(paths(tmp_path, split)) for split in SPLITS}
    assert lines(tmp_path, *SPLITS).split("\n") == [
        f"train: {sizes['train']} images in 2 classes (cat, dog) below {tmp_path}; "
        f"held out from it: {sizes['validation']} for validation, {sizes['test']} for test",
        f"validation: {sizes['validation']} images in 2 classes (cat, dog); held out from train",
        f"test: {sizes['test']} images in 2 classes (cat, dog); held out from train",
    ]


def test_splits_inside_classes_and_classes_named_like_splits_are_noted(tmp_path: Path) -> None:
    inside = [f"{name}/{split}/{i}.png" for name in ("cup", "nut") for split in ("train", "test") for i in range(4)]
    write_images(tmp_path / "inside", inside)
    assert "note: cup/test and cup/train in" in lines(tmp_path / "inside").replace("nut/", "cup/")
    write_images(tmp_path / "parts", [f"batch_{i}/{i}.png" for i in range(3)])
    assert "are taken for classes; if they are none, set data.labels=none" in lines(tmp_path / "parts")
    write_images(tmp_path / "named", [*CLASSES, "test/1.png"])
    assert f"note: the folder test in {tmp_path / 'named'} is taken for a class" in lines(tmp_path / "named")


@pytest.mark.parametrize(
    ("files", "found", "names"),
    [
        (["a/x/0.png", "a/x/1.png", "b/y/0.png", "preview.png"], ["a/x", "b/y"], ("a", "b")),
        (["a/x/0.png", "a/poster.png", "b/y/0.png"], ["a/x", "b/y"], ("a", "b")),
        (["a/x/0.png", "a/y/0.png", "b/z/0.png", "trailer/0.png"], ["a/x", "a/y", "b/z"], ("a", "b")),
        (["x/0.png", "y/0.png", "preview.png"], ["x", "y"], ()),
        (["0.png", "1.png"], ["."], ()),
    ],
)
def test_stray_images_are_not_videos(
    files: Iterable[str], found: list[str], names: tuple[str, ...], tmp_path: Path
) -> None:
    write_images(tmp_path, files)
    used = [open_folder(tmp_path, split, FRAMES, Path, None) for split in SPLITS]
    assert {source.classes for source in used} == {names}
    assert sorted({path for source in used for path in source.samples.paths}) == found  # type: ignore[attr-defined]
