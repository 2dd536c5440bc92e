"""A file named as the root of the data: it is read, and as other splits those of the same name only."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from pictures import png, write_images

from jepa.modality import Split
from modalities.image_text.captions.sources import open_captions
from modalities.storage.folders import FileKind
from modalities.storage.shards import open_shards
from modalities.storage.sources import SHARDS, infer_source
from modalities.storage.splits import named_files
from modalities.video.lists import open_lists

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
STEMS = ["a_train_paths", "a_val_paths", "a_test_paths", "b_train_paths", "b_val_paths", "a_train_old", "train", "test"]


def write_list(path: Path) -> None:
    """A list of two images, or videos, whose names begin with the stem of the file."""
    names = [f"{path.stem}-{number}.png" for number in range(2)]
    rows = [(name, path.stem) for name in names]
    match path.suffix:
        case ".csv":
            text = "".join(f"{name},{caption}\n" for name, caption in [("image", "caption"), *rows])
        case ".jsonl":
            text = "".join(json.dumps({"image": name, "caption": caption}) + "\n" for name, caption in rows)
        case _:
            images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
            notes = [{"image_id": number, "caption": path.stem} for number in range(2)]
            text = json.dumps({"images": images, "annotations": notes})
    path.write_text(text)
    write_images(path.parent, names)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json"])
@pytest.mark.parametrize("named", ["a_train_paths", "a_val_paths"])
def test_a_named_list_of_captions_is_read_with_its_other_splits_only(named: str, ending: str, tmp_path: Path) -> None:
    for stem in STEMS:
        write_list(tmp_path / f"{stem}{ending}")
    for split, stem in zip(SPLITS, STEMS, strict=False):
        source = "coco" if ending == ".json" else "folder"
        samples = open_captions(source, tmp_path / f"{named}{ending}", split, min_side=4).samples
        assert [samples[index].inputs.captions for index in range(len(samples))] == [(stem,)] * 2


@pytest.mark.parametrize("named", ["a_train_paths", "a_val_paths"])
def test_a_named_list_of_videos_is_read_with_its_other_splits_only(named: str, tmp_path: Path) -> None:
    for stem in STEMS:
        (tmp_path / f"{stem}.csv").write_text(f"{stem}.mp4 0\n")
    for split, stem in zip(SPLITS, STEMS, strict=False):
        samples = open_lists(tmp_path / f"{named}.csv", split, {".mp4"}, str).samples
        assert [samples[index].inputs for index in range(len(samples))] == [str(tmp_path / f"{stem}.mp4")]


@pytest.mark.parametrize(
    ("named", "train", "test"),
    [
        ("a_train-0.tar", ["a_train-0"], ["a_val-0"]),
        ("a_train-*.tar", ["a_train-0", "a_train-1"], ["a_val-0", "a_val-1"]),
        ("b_train-*.tar", ["b_train-0"], []),
        ("c-[01].tar", ["c-0", "c-1"], []),
    ],
)
def test_named_shards_are_read_with_their_other_splits_only(
    named: str, train: list[str], test: list[str], tmp_path: Path
) -> None:
    stems = ["a_train-0", "a_train-1", "a_val-0", "a_val-1", "a_x_val-0", "b_train-0", "c-0", "c-1", "c-2"]
    for stem in stems:
        with tarfile.open(tmp_path / f"{stem}.tar", "w") as archive:
            for number in range(30):
                (member := tarfile.TarInfo(f"{number}.png")).size = len(png(stem))
                archive.addfile(member, io.BytesIO(png(stem)))
    kind = FileKind("images", {".png"})
    assert infer_source(tmp_path / named, (SHARDS,)) == "webdataset"
    for split, expected in (("train", train), ("test", test or train)):
        samples, _ = open_shards(tmp_path / named, split, kind, lambda data, name: data)
        assert [path.stem for path in samples.paths] == expected
        assert (len(samples) == 30 * len(expected)) == (split == "train" or bool(test))
    with pytest.raises(FileNotFoundError, match=r"d-\*\.tar does not exist"):
        open_shards(tmp_path / "d-*.tar", "train", kind, lambda data, name: data)


def test_the_named_file_is_read_even_if_another_has_a_word_for_the_same_split(tmp_path: Path) -> None:
    for name in ("x_train2017.json", "x_training2017.json", "x_val2017.json", "x_val2014.json", "x_train_val2017.json"):
        (tmp_path / name).touch()
    found = named_files(tmp_path / "x_training2017.json")
    assert found == {"train": [tmp_path / "x_training2017.json"], "validation": [tmp_path / "x_val2017.json"]}
    assert named_files(tmp_path / "x_val2014.json") == {"train": [tmp_path / "x_val2014.json"]}
