"""Names of splits: of folders, tar files and lists, in all their spellings."""

import tarfile
from pathlib import Path

import pytest
from pictures import write_images

from jepa.modality import Split
from modalities.image.sources import open_source
from modalities.image_text.captions.rules import split_of
from modalities.storage.splits import files_by_split, set_name, split_named

SPELLINGS: dict[Split, str] = {
    "train": "train Training TRAIN train2017 training_set trainset train_images train-imgs train_data trainlist01 tr",
    "validation": "val Valid validation dev eval evaluation val2017 val_split valset dev-set ValImages",
    "test": "test Testing tests te test2015 test_set testdata TESTIMAGES testlist02",
}


@pytest.mark.parametrize("split", SPELLINGS)
def test_a_split_is_recognised_in_every_usual_spelling(split: Split) -> None:
    assert {split_named(word) for word in SPELLINGS[split].split()} == {split}
    assert {split_of(word) for word in SPELLINGS[split].split()} == {split}


def test_other_words_do_not_name_a_split() -> None:
    words = ["", "trainer", "testament", "value", "evaluate", "data", "s", "2017", "images", "tree", "test-train"]
    assert [word for word in words if split_named(word)] == []


@pytest.mark.parametrize(
    "folders",
    [
        ("Training", "Testing"),
        ("train2017", "val2017"),
        ("train", "dev"),
        ("train_images", "test_images"),
        ("tr", "te"),
    ],
)
def test_folders_with_any_names_of_splits_are_splits(folders: tuple[str, str], tmp_path: Path) -> None:
    write_images(tmp_path, [f"{folder}/{name}/{i}.png" for folder in folders for name in "ab" for i in range(20)])
    sources = {split: open_source("folder", tmp_path, split, min_side=4) for split in ("train", "test")}  # type: ignore[arg-type]
    assert {source.classes for source in sources.values()} == {("a", "b")}
    assert len(sources["test"].samples) == 40
    assert {sources[split].samples.folder.name for split in sources} == set(folders)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        ("cat dog test", ("cat", "dog", "test")),
        ("cat dog train", ("cat", "dog", "train")),
        ("cat dog eval", ("cat", "dog", "eval")),
        ("train1 train2 train3", ("train1", "train2", "train3")),
        ("train test other", ()),
    ],
)
def test_a_class_among_others_may_have_the_name_of_a_split(
    folders: str, classes: tuple[str, ...], tmp_path: Path
) -> None:
    write_images(tmp_path, [f"{folder}/{i}.png" for folder in folders.split() for i in range(2)])
    assert open_source("folder", tmp_path, "train", min_side=4).classes == classes


@pytest.mark.parametrize(
    "names",
    [
        ("train2017-0", "train2017-1", "val2017-0"),
        ("Training-0", "Training-1", "Testing-0"),
        ("trainset000", "trainset001", "valset000"),
        ("photos train 0", "photos train 1", "photos test 0"),
    ],
)
def test_tar_files_with_any_names_of_splits_are_splits(names: tuple[str, ...], tmp_path: Path) -> None:
    image = write_images(tmp_path, ["one.png"]) / "one.png"
    for name in names:
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            archive.add(image, "one.png")
    train, test = (open_source("webdataset", tmp_path, split, min_side=4).samples for split in ("train", "test"))  # type: ignore[arg-type]
    assert {path.stem for path in train.paths} == set(names[:2])  # type: ignore[attr-defined]
    assert [path.stem for path in test.paths] == [names[2]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("val-train.csv", "test.csv"), "val-train.csv names two splits, val and train; one is allowed"),
        (("train.csv", "val.csv", "dev.csv"), "both 'dev' and 'val'"),
        (("train.csv", "trainset.csv", "val.csv"), "both 'train' and 'trainset'"),
    ],
)
def test_files_whose_names_contradict_each_other_are_an_error(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        files_by_split([Path(name) for name in names], "data")


def test_files_of_one_set_differ_in_the_word_for_the_split_alone() -> None:
    assert set_name("ssv2_train_paths.csv") == set_name("ssv2_val_paths.csv") != set_name("k400_train_paths.csv")
    assert set_name("trainlist01.csv") == set_name("testlist01.csv") != set_name("testlist02.csv")
    assert set_name("trainset.csv") == set_name("test.csv") != set_name("notes.csv")
