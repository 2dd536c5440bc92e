"""What every source of the built-in modalities says it has read, with labels and with `data.labels=none`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import write_images

from jepa.data.summary import digest_of, split_line, summary_of
from jepa.modality import Samples, Split
from modalities.image.config import ImageConfig
from modalities.image.modality import Image
from modalities.image.sources import open_source as open_images
from modalities.image_text.captions.sources import open_captions
from modalities.storage.splits import StoredSplit
from modalities.video.sources import ReadOptions, open_source as open_videos

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
NAMES = [f"{number:02}" for number in range(30)]
Open = Callable[[Path, Split, bool], StoredSplit]


def videos(source: str) -> Open:
    def open_split(root: Path, split: Split, labels: bool) -> StoredSplit:
        return open_videos(source, root, split, ReadOptions(labels=labels, whole_mb=8.0))  # type: ignore[arg-type]

    return open_split


def video_list(root: Path, split: Split, labels: bool) -> StoredSplit:
    (root / "k.csv").write_text("".join(f"{name}.mp4,{int(name) % 2}\n" for name in NAMES))
    return videos("csv")(root / "k.csv", split, labels)


def frames(root: Path, split: Split, labels: bool) -> StoredSplit:
    write_images(root, [f"{'ab'[int(name) % 2]}/{name}/0.png" for name in NAMES])
    return videos("frames")(root, split, labels)


def arrays(root: Path, split: Split, labels: bool) -> StoredSplit:
    for name in NAMES:
        (root / "ab"[int(name) % 2]).mkdir(exist_ok=True)
        (root / "ab"[int(name) % 2] / f"{name}.npy").touch()
    return videos("npy")(root, split, labels)


def captions(root: Path, split: Split, labels: bool) -> StoredSplit:
    write_images(root, [f"{name}.png" for name in NAMES])
    rows = [{"image": f"{name}.png", "caption": f"number {name}", "label": int(name) % 2} for name in NAMES]
    (root / "captions.jsonl").write_text("\n".join([*map(json.dumps, rows), "{}"]))
    return open_captions("folder", root, split, min_side=4, labels=labels)


def torchvision(root: Path, split: Split, labels: bool) -> StoredSplit:
    return open_images("FakeData", root, split, min_side=4, labels=labels)


LINES: list[tuple[Open, str, str]] = [
    (video_list, "videos", "listed in {}/k.csv"),
    (frames, "folders of frames", "below {}"),
    (arrays, "videos", "below {}"),
    (captions, "captioned images", "listed in {}/captions.jsonl"),
    (torchvision, "images", "of torchvision's FakeData below {}"),
]


def line(split: Split, samples: Samples) -> str:
    return split_line(split, len(samples), summary_of(samples))


@pytest.mark.parametrize(("open_split", "noun", "where"), LINES)
def test_every_source_says_what_it_has_read(
    open_split: Open, noun: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.datasets.FakeData.__init__.__defaults__", (30, (3, 4, 4), 2, None, None, 0))
    found = {split: open_split(tmp_path, split, True) for split in SPLITS}
    names = found["train"].classes
    train, validation, test = (len(found[split].samples) for split in SPLITS)
    malformed = noun == "captioned images"  # one entry of the training set
    assert (len(names), train + validation + test) == (2, 30 + malformed)
    in_classes = f"{noun} in 2 classes ({', '.join(names)})"
    assert line("train", found["train"].samples) == (
        f"train: {train} {in_classes} {where.format(tmp_path)}; "
        f"held out from it: {validation} for validation, {test} for test"
    )
    assert line("test", found["test"].samples) == f"test: {test} {in_classes}; held out from train"


@pytest.mark.parametrize(("open_split", "noun", "where"), LINES)
def test_without_labels_class_folders_are_plain_folders_and_training_keeps_all_samples(
    open_split: Open, noun: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.datasets.FakeData.__init__.__defaults__", (30, (3, 4, 4), 2, None, None, 0))
    samples, classes = open_split(tmp_path, "train", False)
    assert classes == ()
    assert f"{noun} without classes {where.format(tmp_path)}" in line("train", samples)
    if noun != "captioned images":  # captions are held out for retrieval
        assert len(samples) == 30
        assert line("train", samples).endswith("a tenth of them each is also used for validation and test")
        assert len(open_split(tmp_path, "test", False).samples) < 10
    assert noun != "images" or samples[0].labels == {}
    assert (digest_of(samples) != digest_of(open_split(tmp_path, "train", True).samples)) == (noun != "images")


def test_malformed_captions_are_noted(tmp_path: Path) -> None:
    samples = captions(tmp_path, "train", True).samples
    (note,) = summary_of(samples).notes
    assert note.startswith(f"malformed entries: 1; the first: {tmp_path / 'captions.jsonl'}, line 31: no image path")
    assert summary_of(captions(tmp_path, "test", True).samples).notes == ()


def test_images_without_labels_have_no_tasks_and_all_are_trained_on(tmp_path: Path) -> None:
    write_images(tmp_path, [f"batch_{name[0]}/{name}.png" for name in NAMES])
    labelled, plain = (Image(ImageConfig(root=tmp_path, image_size=32, labels=which)) for which in ("auto", "none"))  # type: ignore[arg-type]
    assert [task.label for task in labelled.tasks] == ["class"]
    assert plain.tasks == []
    assert len(labelled.dataset("train")) < len(plain.dataset("train")) == 30
