"""Folders of wav files: which are in which split, and what their classes are."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from jepa_audio.folder import Recordings, open_recordings

from jepa.modality import Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def stored(root: Path, paths: Iterable[str]) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def opened(root: Path) -> list[Recordings]:
    return [open_recordings(root, split, lambda path: torch.tensor(len(path.name))) for split in SPLITS]


def test_stored_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    stored(tmp_path, [f"{split}/{name}" for split in ("train", "val", "test") for name in ("b/x/1.wav", "a/2.WAV")])
    stored(tmp_path, ["train/b/notes.txt", "train/.hidden/3.wav", "train/a/.4.wav"])
    for split, found in zip(("train", "val", "test"), opened(tmp_path), strict=True):
        assert (found.folder.name, list(found.paths), list(found.classes)) == (
            split,
            ["a/2.WAV", "b/x/1.wav"],
            ["a", "b"],
        )
        assert [found[index].labels["class"] for index in range(2)] == [0, 1]


def test_missing_splits_are_carved_from_train_by_name(tmp_path: Path) -> None:
    names = [f"{one}/{number}.wav" for one in "ab" for number in range(200)]
    splits = opened(stored(tmp_path, names))
    parts = [set(split.paths) for split in splits]
    assert set.union(*parts) == set(names)
    assert sum(map(len, parts)) == len(names)
    assert all(20 < len(part) < 65 for part in parts[1:])
    more = opened(stored(tmp_path, [f"c/{number}.wav" for number in range(50)]))
    assert all(part < set(split.paths) for part, split in zip(parts, more, strict=True))


@pytest.mark.parametrize("held_out", ["val", "validation", "test"])
def test_a_lone_held_out_split_is_the_test_split(tmp_path: Path, held_out: str) -> None:
    stored(
        tmp_path,
        [f"{split}/{one}/{number}.wav" for split in ("train", held_out) for one in "ab" for number in range(50)],
    )
    train, validation, test = opened(tmp_path)
    assert (train.folder.name, validation.folder.name, test.folder.name) == ("train", "train", held_out)
    assert len(train) + len(validation) == len(test) == 100
    assert len(validation) > 0


def test_sound_without_classes_is_trained_on_as_a_whole(tmp_path: Path) -> None:
    train, validation, _ = opened(stored(tmp_path, [f"{number}.wav" for number in range(99)] + ["more/1.wav"]))
    assert (len(train), train.classes, train[0].labels) == (100, (), {})
    assert 0 < len(validation) < 30


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        ([], "no sound below"),
        (["test/a/1.wav", "test/b/1.wav"], "holds test; train is needed"),
        (["train/1.wav", "val/1.wav", "valid/1.wav"], "one folder for each"),
        (["train/a/1.wav", "train/b/1.wav", "test/c/1.wav"], "test/c is not one of the class folders.*a, b"),
    ],
)
def test_what_does_not_fit_together_is_told(tmp_path: Path, paths: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        open_recordings(stored(tmp_path, paths), "test", lambda path: torch.zeros(1))


def test_a_root_that_is_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match=r"gone is not there; a folder is needed"):
        open_recordings(tmp_path / "gone", "train", lambda path: torch.zeros(1))
