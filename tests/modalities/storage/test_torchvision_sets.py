"""The data sets of torchvision in their official layouts: which splits train and test, and what their classes are."""

import csv
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import write_images
from PIL import Image

from jepa.config import ConfigError, build
from jepa.modality import BadSampleError, Split
from modalities.image import Image as ImageModality, ImageConfig
from modalities.storage.splits import StoredSplit
from modalities.storage.torchvision_sets import open_torchvision


def opened(name: str, root: Path, part: Split, /, **arguments: Any) -> StoredSplit:
    return open_torchvision(name, root, part, arguments=arguments)


def labels(found: StoredSplit) -> list[Any]:
    return [found.samples[index].labels.get("class") for index in range(len(found.samples))]


def write_stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five training images, three test images and forty unlabelled ones; labels count from 1."""
    folder = root / "stl10_binary"
    folder.mkdir()
    (folder / "class_names.txt").write_text("airplane\nbird\ncar\n")
    for part, names in (("train", [1, 2, 3, 1, 2]), ("test", [3, 2, 1]), ("unlabeled", [0] * 40)):
        pixels = np.arange(len(names), dtype=np.uint8)[:, None].repeat(3 * 96 * 96, 1)
        (folder / f"{part}_X.bin").write_bytes(pixels.tobytes())
        if part != "unlabeled":
            (folder / f"{part}_y.bin").write_bytes(bytes(names))
    monkeypatch.setattr("torchvision.datasets.STL10._check_integrity", lambda _: True)  # sums of the real files
    return root


def test_the_unlabelled_images_of_stl10_train_and_its_labelled_ones_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_stl10(tmp_path, monkeypatch)
    names = ("airplane", "bird", "car")
    unlabelled, test = (opened("STL10", root, split, split="unlabeled") for split in ("train", "test"))
    carved = opened("STL10", root, "validation", split="unlabeled")
    assert len(unlabelled.samples) + len(carved.samples) == 40
    assert (unlabelled.classes, set(labels(unlabelled))) == ((), {None})
    assert (test.classes, labels(test)) == (names, [2, 1, 0])
    both = opened("STL10", root, "train", split="train+unlabeled")
    assert both.classes == names
    assert set(labels(both)) == {0, 1, 2, None}
    with pytest.raises(ValueError, match=r"split=test would train on the test split"):
        opened("STL10", root, "train", split="test")
    with pytest.raises(ValueError, match=r"STL10: .*'all'.* Valid values are .*unlabeled"):
        opened("STL10", root, "train", split="all")


def write_emnist(root: Path, version: str, counts: Mapping[str, int]) -> None:
    raw = root / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in counts.items():
        numbers = bytes(1 + item % 26 for item in range(count))
        images = struct.pack(">IIII", 0x803, count, 28, 28) + bytes(28 * 28 * count)
        (raw / f"emnist-{version}-{part}-images-idx3-ubyte").write_bytes(images)
        (raw / f"emnist-{version}-{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + numbers)


def test_the_split_of_emnist_chooses_its_version(tmp_path: Path) -> None:
    write_emnist(tmp_path, "letters", {"train": 60, "test": 7})
    test = opened("EMNIST", tmp_path, "test", split="letters")
    assert [test.classes[label] for label in labels(test)] == list("abcdefg")
    assert len(test.classes) == 27  # torchvision's names begin with N/A
    train = {split: opened("EMNIST", tmp_path, split, split="letters") for split in ("train", "validation")}
    assert sum(len(found.samples) for found in train.values()) == 60
    with pytest.raises(FileNotFoundError, match=r"EMNIST\('.*', split='digits', train=True, download=True\)"):
        opened("EMNIST", tmp_path, "train", split="digits")


def write_fgvc(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    write_images(data / "images", [f"{number}.jpg" for number in range(6)])
    (data / "variants.txt").write_text("707-320\nA380\n")
    of_split = {"train": "0 707-320\n1 A380\n", "val": "2 A380\n", "trainval": "0 707-320\n1 A380\n2 A380\n"}
    for name, lines in {**of_split, "test": "4 A380\n5 707-320\n"}.items():
        (data / f"images_variant_{name}.txt").write_text(lines)


def test_a_chosen_split_that_contains_a_held_out_one_leaves_none_of_it_for_validation(tmp_path: Path) -> None:
    write_fgvc(tmp_path)
    assert [len(opened("FGVCAircraft", tmp_path, s).samples) for s in ("train", "validation", "test")] == [2, 1, 2]
    parts: tuple[Split, Split] = ("train", "validation")
    chosen = [opened("FGVCAircraft", tmp_path, split, split="trainval").samples for split in parts]
    items = [set(samples.indices.tolist()) for samples in chosen]  # type: ignore[attr-defined]
    assert items[0] | items[1] == {0, 1, 2}
    assert not items[0] & items[1]
    assert len(opened("FGVCAircraft", tmp_path, "test", split="trainval").samples) == 2


def write_gtsrb(root: Path, numbers: list[str]) -> None:
    training = root / "gtsrb" / "GTSRB" / "Training"
    for number in numbers:
        (training / number).mkdir(parents=True)
        (training / number / "0.ppm").write_bytes(b"nothing")  # classes are found without reading images
    test = root / "gtsrb" / "GTSRB" / "Final_Test" / "Images"
    test.mkdir(parents=True)
    with (root / "gtsrb" / "GT-final_test.csv").open("w", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(["Filename", "ClassId"])
        for label in (1, 0, 7):
            Image.new("RGB", (8, 8)).save(test / f"{label}.ppm")
            rows.writerow([f"{label}.ppm", label])


def test_classes_without_names_are_the_labels_of_the_training_set(tmp_path: Path) -> None:
    write_gtsrb(tmp_path, ["00000", "00001"])
    test = opened("GTSRB", tmp_path, "test")
    assert test.classes == opened("GTSRB", tmp_path, "train").classes == ("0", "1")
    assert [test.samples[index].labels["class"] for index in (0, 1)] == [1, 0]
    with pytest.raises(BadSampleError, match="label '7' is not in the training set"):
        test.samples[2]


def write_clevr(root: Path) -> None:
    folder = root / "clevr" / "CLEVR_v1.0"
    counts = {"train": [9, 3, 9], "val": [3], "test": [0]}
    write_images(folder / "images", [f"{part}/{i}.png" for part, of in counts.items() for i in range(len(of))])
    (folder / "scenes").mkdir()
    for part in ("train", "val"):
        scenes = [f'{{"image_filename": "{i}.png", "objects": {[1] * n}}}' for i, n in enumerate(counts[part])]
        (folder / "scenes" / f"CLEVR_{part}_scenes.json").write_text(f'{{"scenes": [{", ".join(scenes)}]}}')


def test_labels_that_are_not_consecutive_are_numbered_in_order_and_none_is_unlabelled(tmp_path: Path) -> None:
    write_clevr(tmp_path)
    train = opened("CLEVRClassification", tmp_path, "train")
    assert train.classes == ("3", "9")
    assert sorted(labels(train)) == [0, 1, 1]
    assert labels(opened("CLEVRClassification", tmp_path, "validation")) == [0]
    assert labels(opened("CLEVRClassification", tmp_path, "test")) == [None]


def test_inaturalist_names_its_classes_without_reading_images(tmp_path: Path) -> None:
    names = [f"0000{i}_Animalia_Chordata_Aves_X_Y_Z_{name}" for i, name in enumerate(("one", "two"))]
    write_images(tmp_path / "2021_valid", [f"{name}/{i}.png" for name in names for i in range(2)])
    for path in (tmp_path / "2021_valid").rglob("*.png"):
        path.write_bytes(b"nothing")  # decoding one would fail
    found = opened("INaturalist", tmp_path, "train", version="2021_valid")
    assert found.classes == tuple(names)
    assert opened("INaturalist", tmp_path, "train", version="2021_valid", target_type="class").classes == ("Aves",)


def test_arguments_are_settings_of_torchvision_sets_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(write_stl10(tmp_path, monkeypatch))
    settings: dict[str, Any] = {"source": "STL10", "root": root, "torchvision": {"split": "unlabeled"}}
    modality = ImageModality(build(ImageConfig, [settings]))
    assert pickle.loads(pickle.dumps(modality)).tasks == []
    assert modality.dataset("train")[0].labels == {}
    with pytest.raises(ValueError, match=r"data\.torchvision\.fold: torchvision's STL10 takes split, folds"):
        opened("STL10", tmp_path, "train", fold=1)
    with pytest.raises(ValueError, match=r"data\.torchvision\.train: torchvision's EMNIST takes split"):
        opened("EMNIST", tmp_path, "train", train=False)
    with pytest.raises(ConfigError, match=r"torchvision"):
        build(ImageConfig, [settings, {"torchvision": {"split": ["a"]}}])


def test_a_set_without_classes_is_read_without_labels(tmp_path: Path) -> None:
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    write_images(voc / "JPEGImages", ["a.jpg", "b.jpg"])
    for folder, name, text in (("Annotations", "a.xml", "<annotation/>"), ("ImageSets/Main", "train.txt", "a\n")):
        (voc / folder).mkdir(parents=True)
        (voc / folder / name).write_text(text)
    with pytest.raises(ValueError, match=r"\(\w+, dict\).*: data\.labels=none reads the images alone$"):
        opened("VOCDetection", tmp_path, "train")
    found = open_torchvision("VOCDetection", tmp_path, "train", labels=False)
    assert found.classes == ()
    assert found.samples[0].labels == {}
    assert found.samples[0].inputs.shape == (3, 4, 4)
