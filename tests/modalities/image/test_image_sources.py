"""Sources of images: folders, tar shards and torchvision sets in every layout; their splits, classes and errors."""

import io
import os
import pickle
import struct
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import colour_of, write_images
from PIL import Image

from jepa.config import parse_yaml, to_yaml
from jepa.launch import resolve
from jepa.modality import BadSampleError, Samples, Split
from modalities.image.sources import open_source
from modalities.storage.folders import FileKind, open_folder
from modalities.storage.packed import PackedStrings

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def contents(samples: Samples) -> list[tuple[tuple[int, ...], object]]:
    """Colour of the first pixel and label of every sample."""
    found = [samples[index] for index in range(len(samples))]
    return [(tuple(sample.inputs[:, 0, 0].tolist()), sample.labels.get("class")) for sample in found]


def open_all(root: Path, source: str = "folder") -> Mapping[Split, list[tuple[tuple[int, ...], object]]]:
    return {split: contents(open_source(source, root, split, min_side=4).samples) for split in SPLITS}


def test_a_deleted_file_is_a_bad_sample(tmp_path: Path) -> None:
    samples = open_source("folder", write_images(tmp_path, ["a.png", "b.png"]), "train", min_side=4).samples
    (tmp_path / "a.png").unlink()
    with pytest.raises(BadSampleError, match=r"a\.png.*No such file"):
        samples[0]
    assert samples[1].labels == {}


SPLIT_FILES = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(30)]


@pytest.mark.parametrize(
    ("folders", "train", "validation", "test"),
    [
        (["train", "val", "test"], "train", "val", "test"),
        (["TRAIN", "Valid", "Test"], "TRAIN", "Valid", "Test"),
        (["train", "val"], "train", "train", "val"),
        (["train", "test"], "train", "train", "test"),
        (["train"], "train", "train", "train"),
        ([""], "", "", ""),
    ],
)
@pytest.mark.parametrize("labelled", [True, False])
def test_stored_splits_are_used_and_missing_ones_are_carved(
    folders: list[str], train: str, validation: str, test: str, labelled: bool, tmp_path: Path
) -> None:
    files = SPLIT_FILES if labelled else [file.replace("/", "") for file in SPLIT_FILES]
    write_images(tmp_path, [f"{folder}/{file}".lstrip("/") for folder in folders for file in files])
    found = open_all(tmp_path)
    for split, folder in zip(SPLITS, (train, validation, test), strict=True):
        stored = {colour_of(f"{folder}/{file}".lstrip("/")) for file in files}
        assert found[split]
        assert {colour for colour, _ in found[split]} <= stored
        assert {label for _, label in found[split]} == ({0, 1} if labelled else {None})
    if labelled:
        used = [colour for split in SPLITS for colour, _ in found[split]]
        assert len(used) == len(set(used)) == len(files) * len(folders)
    else:
        assert len(found["train"]) == len(files)


@pytest.mark.parametrize(
    ("files", "classes"),
    [
        (["a/1.png", "b/2.png"], ("a", "b")),
        (["b/x/y/1.png", "a/x/2.PNG", "c/readme.txt.png", "a/x/3.jpeg"], ("a", "b", "c")),
        (["airplane/1.png", "boat/1.png", "train/1.png"], ("airplane", "boat", "train")),
        (["a/1.png", "b/2.png", "3.png", "4.png"], ()),
        (["train/1.png", "train/2.png", "test/3.png"], ()),
        (["train/all/1.png", "test/all/3.png"], ()),
        (["a/1.png", "b/2.png", ".hidden/3.png", "c/.4.png"], ("a", "b")),
    ],
)
def test_folders_are_classes_only_with_a_clear_class_level(
    files: list[str], classes: tuple[str, ...], tmp_path: Path
) -> None:
    source = open_source("folder", write_images(tmp_path, files), "train", min_side=4)
    assert source.classes == classes
    if not classes:
        assert len(source.samples) == sum(not file.startswith("test") for file in files)


def test_carved_splits_depend_on_name_and_seed_only(tmp_path: Path) -> None:
    files = [f"{name}/{i}.png" for name in ("a", "b") for i in range(250)]
    some, everything = write_images(tmp_path / "some", files[::2]), write_images(tmp_path / "all", files)
    of_some, of_all = open_all(some), open_all(everything)
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert set(of_some[split]) <= set(of_all[split])
        assert abs(len(of_all[split]) / 500 - share) < 0.05
    kind = FileKind("images", (".png",))
    found = [open_folder(everything, "test", kind, Path, seed).samples for seed in (None, 0, 1)]
    assert len({samples.digest() for samples in found}) == 3  # type: ignore[attr-defined]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere", ["deep/1.png"])
    write_images(tmp_path / "root", ["2.png"])
    (tmp_path / "root" / "away").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "again").symlink_to(".")
    assert len(open_source("folder", tmp_path / "root", "train", min_side=4).samples) == 2


def test_all_file_names_are_read_and_sources_survive_pickling(tmp_path: Path) -> None:
    names = ["snow ☃ ünï.png", os.fsdecode(b"not-utf8-\xff.png"), "UPPER.PNG", "two.dots.png", "line\nbreak.png"]
    source = open_source("folder", write_images(tmp_path, names), "train", min_side=4)
    assert len(contents(source.samples)) == 5
    assert contents(pickle.loads(pickle.dumps(source)).samples) == contents(source.samples)


def test_packed_strings_equal_the_original_list() -> None:
    strings = ["", "a", "ünï", "", "x" * 300]
    packed = PackedStrings(strings)
    assert list(packed) == strings
    assert packed[-1] == strings[-1]
    assert list(packed[1:3]) == strings[1:3]
    with pytest.raises(IndexError):
        packed[5]


@pytest.mark.parametrize(
    ("source", "files", "error", "message"),
    [
        ("folder", None, FileNotFoundError, "does not exist"),
        ("folder", [], ValueError, "no images below .*looked for files ending in .*jpg"),
        ("folder", ["val/a/1.png", "val/b/1.png"], ValueError, "'val' but no 'train'"),
        ("folder", ["train/1.png", "val/1.png", "valid/1.png"], ValueError, "both 'val' and 'valid'"),
        ("folder", ["train/a/1.png", "train/b/1.png", "test/c/1.png"], ValueError, "test/c .*: a, b"),
        ("webdataset", ["1.png"], FileNotFoundError, "no .tar files below"),
        ("cifar10", [], ValueError, "unknown data source 'cifar10', did you mean CIFAR10.*folder, webdataset"),
        ("quux", [], ValueError, "unknown data source 'quux'; a source is folder"),
        ("CIFAR10", [], FileNotFoundError, r"torchvision\.datasets\.CIFAR10\('.*', train=True, download=True\)"),
        ("STL10", [], FileNotFoundError, r"STL10\('.*', split='test', download=True\)"),
        ("CocoDetection", [], ValueError, r"also needs data\.torchvision\.annFile"),
        ("EMNIST", [], ValueError, r"also needs data\.torchvision\.split: 'byclass', .*'mnist'$"),
    ],
)
def test_a_wrong_source_is_an_error(
    source: str, files: list[str] | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    root = tmp_path / "none" if files is None else write_images(tmp_path, files)
    with pytest.raises(error, match=message):
        open_source(source, root, "test" if source in ("STL10", "folder") else "train", min_side=4)


def test_a_file_instead_of_a_folder_is_an_error(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png"])
    with pytest.raises(NotADirectoryError, match=r"1\.png is a file; a folder is needed"):
        open_source("folder", tmp_path / "1.png", "train", min_side=4)


def test_a_generated_torchvision_set_is_carved_into_disjoint_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.datasets.FakeData.__init__.__defaults__", (60, (3, 8, 8), 5, None, None, 0))
    sources = {split: open_source("FakeData", tmp_path, split, min_side=4) for split in SPLITS}
    items = [set(sources[split].samples.indices.tolist()) for split in SPLITS]  # type: ignore[attr-defined]
    assert set.union(*items) == set(range(60))
    assert sum(map(len, items)) == 60
    assert len(sources["train"].classes) == 5
    assert sources["train"].samples[0].inputs.shape == (3, 8, 8)


def write_mnist(root: Path, counts: Mapping[str, int]) -> None:
    (root / "MNIST" / "raw").mkdir(parents=True)
    for part, count in counts.items():
        images = np.arange(count, dtype=np.uint8).repeat(28 * 28).tobytes()
        labels = (np.arange(count) % 10).astype(np.uint8).tobytes()
        raw = root / "MNIST" / "raw"
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels)


def test_a_stored_torchvision_test_split_stays_the_test_split(tmp_path: Path) -> None:
    write_mnist(tmp_path, {"train": 100, "t10k": 20})
    found = open_all(tmp_path, "MNIST")
    assert found["test"] == [((i, i, i), i % 10) for i in range(20)]
    assert sorted(found["train"] + found["validation"]) == [((i, i, i), i % 10) for i in range(100)]
    assert 2 < len(found["validation"]) < 20


def test_all_three_splits_of_a_torchvision_set_are_used(tmp_path: Path) -> None:
    files = {
        name: [f"country211/{name}/{c}/{i}.jpg" for c in ("AD", "FR") for i in (0, 1)]
        for name in ("train", "valid", "test")
    }
    write_images(tmp_path, [file for name in files.values() for file in name])
    found = open_all(tmp_path, "Country211")
    assert [len(found[split]) for split in SPLITS] == [4, 4, 4]
    assert open_source("Country211", tmp_path, "validation", min_side=4).classes == ("AD", "FR")


def test_a_torchvision_set_without_one_class_per_image_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "torchvision.datasets.FakeData.__getitem__", lambda *_: (Image.new("L", (4, 4)), torch.zeros(40))
    )
    with pytest.raises(ValueError, match=r"FakeData .*\(Image, Tensor\); an image and a class"):
        open_source("FakeData", tmp_path, "train", min_side=4)


def test_a_broken_item_of_a_torchvision_set_is_a_bad_sample(tmp_path: Path) -> None:
    write_images(
        tmp_path, [f"country211/{name}/{c}/0.jpg" for name in ("train", "valid", "test") for c in ("AD", "FR")]
    )
    (tmp_path / "country211" / "train" / "AD" / "0.jpg").write_bytes(b"nothing")
    samples = open_source("Country211", tmp_path, "train", min_side=4).samples
    with pytest.raises(BadSampleError, match=r"Country211\[0\]"):
        samples[0]
    assert samples[1].labels == {"class": 1}


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def pixel(value: int) -> bytes:
    return encoded(Image.new("L", (4, 4), value), "PNG")


def shard_members(first: int, count: int) -> list[tuple[str, bytes]]:
    """Samples whose grey value is their number and whose label is the number modulo 3."""
    return [
        member
        for i in range(first, first + count)
        for member in ((f"set/{i:03d}.png", pixel(i)), (f"set/{i:03d}.cls", str(i % 3).encode()))
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
def test_shards_give_the_same_samples_as_the_webdataset_package_in_the_same_order(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    extra = [("__meta__.json", b"{}"), ("set/c.txt", b"no image"), ("./d.png", pixel(91))]
    paths = [
        write_tar(tmp_path / "train-0.tar", shard_members(0, 5) + extra),
        write_tar(tmp_path / "train-1.tar", shard_members(5, 5)),
        write_tar(tmp_path / "validation-0.tar", shard_members(20, 5)),
        write_tar(tmp_path / "test-0.tar", shard_members(30, 5)),
    ]
    theirs = [
        (item["png"][0, 0].tolist(), int(item["cls"]) if "cls" in item else None)
        for item in webdataset.WebDataset([str(path) for path in paths[:2]], shardshuffle=False).decode("rgb8")
        if "png" in item
    ]
    found = open_all(tmp_path, "webdataset")
    assert [(list(colour), label) for colour, label in found["train"]] == theirs
    assert [label for _, label in found["validation"]] == [i % 3 for i in range(20, 25)]
    assert [colour[0] for colour, _ in found["test"]] == list(range(30, 35))
    assert open_source("webdataset", tmp_path, "test", min_side=4).classes == ("0", "1", "2")


@pytest.mark.parametrize("layout", ["one.tar", "deep/{}.tar", "train/{}.tar test/0.tar", "x-train-{}.tar x-test-0.tar"])
def test_shards_are_split_by_folder_file_name_or_hash(layout: str, tmp_path: Path) -> None:
    train, _, test = layout.partition(" ")
    if test:
        write_tar(tmp_path / test, shard_members(200, 5))
    for number in range(2 if "{}" in train else 1):
        write_tar(tmp_path / train.format(number), shard_members(100 * number, 100))
    found = open_all(tmp_path / layout if layout == "one.tar" else tmp_path, "webdataset")
    total = sum(len(found[split]) for split in SPLITS)
    assert total == len({colour for split in SPLITS for colour, _ in found[split]})
    assert total == (100 if layout == "one.tar" else 205 if test else 200)
    assert len(found["validation"]) > 2
    assert [colour[0] for colour, _ in found["test"]] == list(range(200, 205)) or not test


@pytest.mark.parametrize(
    ("sidecar", "label"),
    [
        (("0.cls", b" 2\n"), "2"),
        (("0.json", b'{"label": 4}'), "4"),
        (("0.json", b'{"class": "cat", "cls": 1}'), "1"),
        (("0.json", b'{"class": "cat"}'), "cat"),
        (("0.cls", b"n02084071"), "n02084071"),
        (("0.cls", b"-1"), None),
        (("0.json", b'{"caption": "x"}'), None),
        (("0.json", b"[1]"), None),
        (("0.txt", b"5"), None),
    ],
)
def test_labels_of_shards_are_read_from_cls_or_json(
    sidecar: tuple[str, bytes], label: str | None, tmp_path: Path
) -> None:
    for name in SPLITS:
        write_tar(tmp_path / f"a-{name}.tar", [("0.png", pixel(1)), sidecar])
    source = open_source("webdataset", tmp_path, "validation", min_side=4)
    assert contents(source.samples) == [((1, 1, 1), None if label is None else 0)]
    assert source.classes == (() if label is None else (label,))


def damaged(data: bytes, how: str) -> bytes:
    """A tar of 10 samples, damaged at sample 6; a sample takes 4 blocks."""
    start = 6 * 4 * 512
    match how:
        case "cut in the data":
            return data[: start + 512 + 20]
        case "cut in a header":
            return data[: start + 300]
        case "cut between members":
            return data[:start]
        case "cut before the label":
            return data[: start + 1024]
        case _:
            return data[:start] + b"\x55" * 512 + data[start + 512 :]


@pytest.mark.parametrize(
    "how", ["cut in the data", "cut in a header", "cut between members", "cut before the label", "overwritten"]
)
def test_a_damaged_shard_gives_the_samples_before_the_damage_and_one_bad_sample(how: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "train" / "0.tar", shard_members(0, 10))
    path.write_bytes(damaged(path.read_bytes(), how))
    write_tar(tmp_path / "validation" / "0.tar", shard_members(20, 2))
    write_tar(tmp_path / "test" / "0.tar", shard_members(30, 2))
    samples = open_source("webdataset", tmp_path, "train", min_side=4).samples
    good = len(samples) - 1
    assert good in (5, 6)
    assert [samples[i].inputs[0, 0, 0].item() for i in range(good)] == list(range(good))
    assert all(samples[i].labels == {"class": i % 3} for i in range(good))
    with pytest.raises(BadSampleError, match="damaged tar file") as caught:
        samples[good]
    assert caught.value.source == str(path)


def test_a_bad_image_or_label_in_a_shard_is_a_bad_sample_that_names_the_member(tmp_path: Path) -> None:
    members = [("0.png", pixel(0)), ("0.cls", b" "), ("1.png", b"empty"), ("2.png", b""), ("3.png", pixel(3))]
    for name in SPLITS:
        write_tar(tmp_path / f"{name}.tar", members)
    samples = pickle.loads(pickle.dumps(open_source("webdataset", tmp_path, "train", min_side=4).samples))
    for index, reason in enumerate([r"unreadable label in 0\.cls: it is empty", "known format", "known format"]):
        with pytest.raises(BadSampleError, match=rf"train\.tar/{index}\.png.*{reason}"):
            samples[index]
    assert samples[3].inputs.shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("names", "message"), [(["train-0", "other"], "other.tar names no split"), (["val-0"], "none is named train")]
)
def test_shards_with_incomplete_split_names_are_an_error(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        write_tar(tmp_path / f"{name}.tar", shard_members(0, 1))
    with pytest.raises(ValueError, match=message):
        open_source("webdataset", tmp_path, "train", min_side=4)


def test_arguments_of_a_torchvision_set_may_be_lists(tmp_path: Path) -> None:
    arguments = ["data.torchvision.image_size=[3,12,20]", "data.torchvision.size=30", "data.torchvision.num_classes=2"]
    data = ["data.source=FakeData", f"data.root={tmp_path}", "data.image_size=8", "data.patch_size=4"]
    config, modality = resolve("image", {}, ["run_dir=unused", *data, *arguments])
    assert modality.dataset("train")[0].inputs.shape == (3, 12, 20)
    stored = parse_yaml(to_yaml(config), "config")["data"]["torchvision"]  # as a run keeps it
    assert stored["image_size"] == [3, 12, 20]
