"""Folders of wav files: which files are in which split, and what their classes are."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from jepa.data.summary import summary_lines
from jepa.modality import Split
from jepa_audio.modality import Audio, AudioConfig
from modalities.storage.folders import Files

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def make_files(root: Path, paths: Iterable[str]) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def open_split(root: Path, split: Split) -> Files:
    files = Audio(AudioConfig(source="folder", root=root)).dataset(split)
    assert isinstance(files, Files)
    return files


def open_all(root: Path) -> list[Files]:
    return [open_split(root, split) for split in SPLITS]


def class_names(root: Path) -> Sequence[str]:
    tasks = Audio(AudioConfig(root=root)).tasks  # the source is what the root holds
    return tasks[0].classes if tasks else ()


def test_stored_splits_are_used_as_they_are(tmp_path: Path) -> None:
    make_files(tmp_path, [f"{split}/{name}" for split in ("train", "val", "test") for name in ("b/x/1.wav", "a/2.WAV")])
    make_files(tmp_path, ["train/b/notes.txt", "train/.hidden/3.wav", "train/a/.4.wav"])
    for folder, files in zip(("train", "val", "test"), open_all(tmp_path), strict=True):
        assert (files.folder.name, list(files.paths)) == (folder, ["a/2.WAV", "b/x/1.wav"])
        assert files.class_index == {"a": 0, "b": 1}
    assert list(class_names(tmp_path)) == ["a", "b"]


def test_missing_splits_are_carved_from_train_by_name(tmp_path: Path) -> None:
    names = [f"{one}/{number}.wav" for one in "ab" for number in range(200)]
    splits = [set(files.paths) for files in open_all(make_files(tmp_path, names))]
    assert set.union(*splits) == set(names)
    assert sum(map(len, splits)) == len(names)
    assert all(20 < len(paths) < 65 for paths in splits[1:])
    more = open_all(make_files(tmp_path, [f"c/{number}.wav" for number in range(50)]))
    assert all(paths < set(files.paths) for paths, files in zip(splits, more, strict=True))


def test_the_same_names_are_carved_as_in_earlier_versions(tmp_path: Path) -> None:
    make_files(tmp_path, [f"{one}/{number}.wav" for one in "ab" for number in range(15)])
    _, validation, test = open_all(tmp_path)
    assert list(validation.paths) == ["a/5.wav", "b/11.wav", "b/2.wav", "b/7.wav"]
    assert list(test.paths) == ["a/1.wav", "a/2.wav"]


@pytest.mark.parametrize("held_out", ["val", "validation", "test"])
def test_a_lone_held_out_split_is_the_test_split(tmp_path: Path, held_out: str) -> None:
    folders = ("train", held_out)
    make_files(tmp_path, [f"{folder}/{one}/{number}.wav" for folder in folders for one in "ab" for number in range(50)])
    train, validation, test = open_all(tmp_path)
    assert (train.folder.name, validation.folder.name, test.folder.name) == ("train", "train", held_out)
    assert len(train) + len(validation) == len(test) == 100
    assert len(validation) > 0


def test_unlabelled_sound_is_all_used_for_training(tmp_path: Path) -> None:
    train, validation, _ = open_all(make_files(tmp_path, [f"{number}.wav" for number in range(99)] + ["more/1.wav"]))
    assert (len(train), class_names(tmp_path), train.class_index) == (100, (), {})
    assert 0 < len(validation) < 30


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        ([], "no recordings below"),
        (["test/a/1.wav", "test/b/1.wav"], "'test' but no 'train'"),
        (["train/1.wav", "val/1.wav", "valid/1.wav"], "both 'val' and 'valid'"),
        (["train/a/1.wav", "train/b/1.wav", "test/c/1.wav"], "test/c .*a, b"),
    ],
)
def test_folders_that_contradict_each_other_are_errors(tmp_path: Path, paths: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        open_split(make_files(tmp_path, paths), "test")


def test_folders_are_described_and_may_be_no_classes(tmp_path: Path) -> None:
    make_files(tmp_path, [f"{one}/{number}.wav" for one in "ab" for number in range(20)] + ["a/cover.jpg"])
    labelled, plain = (Audio(AudioConfig(root=tmp_path, labels=which)) for which in ("auto", "none"))  # type: ignore[arg-type]
    (line,) = summary_lines(labelled)
    assert line.startswith(
        f"train: {len(labelled.dataset('train'))} recordings in 2 classes (a, b) below {tmp_path}; held out"
    )
    assert line.endswith("passed over: 1 .jpg")
    assert summary_lines(plain)[0].startswith(
        f"train: 40 recordings without classes below {tmp_path}; a tenth of them each is "
    )
    assert plain.tasks == []


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone does not exist"):
        open_split(tmp_path / "gone", "train")
