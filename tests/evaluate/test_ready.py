"""Before the first step, in a dry run and before a submission: can the evaluation run, and what will it not measure?"""

import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from captioned import TINY as CAPTIONED
from pictures import png, write_class_images, write_images
from PIL import Image

from jepa import launch
from jepa.data import open_split
from jepa.evaluate.ready import announce_evaluation, evaluation_notes
from modalities.storage.splits import carved_codes
from modalities.video.list_rows import read_list
from modalities.video.list_splits import VideoList

NETWORKS = ["model.size={width: 24, depth: 1, heads: 2}", "model.predictor={width: 16, depth: 1, heads: 2}"]
TINY = [*NETWORKS, "steps=2", "optim.batch_size=8", "compute.workers=0", "compute.device=cpu", "evaluate.report=false"]
IMAGES = ["data.source=folder", "data.image_size=16", "data.patch_size=4", "data.masking.kind=random", *TINY]
VIDEOS = [
    "data.source=csv",
    "data.image_size=16",
    "data.patch_size=8",
    "data.frames=2",
    "data.tubelet=2",
    "data.masking=[{kind: random}]",
    *TINY,
]
Case = tuple[str, list[str]]  # modality and settings


@pytest.fixture(autouse=True)
def _quick_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dry runs count the cost of the first masks alone."""
    monkeypatch.setattr("jepa.cost.flops.DRAWS", 1)


def other_class_names(root: Path) -> Case:
    write_class_images(root, {"train": 20, "test": 4})
    (root / "test" / "red").rename(root / "test" / "Red")
    return "image", IMAGES


def unreadable_validation_images(root: Path) -> Case:
    write_class_images(root, {"train": 20, "val": 4, "test": 4})
    for path in (root / "val").rglob("*.png"):
        path.write_bytes(b"")
    return "image", IMAGES


def label_that_training_shards_lack(root: Path) -> Case:
    for split, labels in (("train", "0101"), ("test", "02")):
        with tarfile.open(root / f"{split}.tar", "w") as tar:
            for number, label in enumerate(labels):
                for ending, content in ((".png", png(f"{number}")), (".cls", label.encode())):
                    (root / "member").write_bytes(content)
                    tar.add(root / "member", f"{number}{ending}")
    (root / "member").unlink()
    return "image", ["data.source=webdataset", *IMAGES[1:]]


def misspelt_folder_in_a_validation_list(root: Path) -> Case:
    frames = [Image.new("RGB", (16, 16), (grey, grey, grey)) for grey in range(0, 250, 50)]
    for number in range(8):
        frames[0].save(root / f"{number}.gif", save_all=True, append_images=frames[1:])
    (root / "train.csv").write_text("".join(f"{number}.gif {number % 2}\n" for number in range(8)))
    (root / "val.csv").write_text("clips/0.gif 0\nclips/1.gif 1\n")
    return "video", VIDEOS


def label_that_training_captions_lack(root: Path) -> Case:
    write_images(root, [f"{number}.png" for number in range(20)])
    lines = [
        {"image": f"{number}.png", "caption": "a dog", "split": split, "label": "cat" if number == 19 else "dog"}
        for number, split in enumerate(["train"] * 16 + ["val", "val", "test", "test"])
    ]
    (root / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return "image-text", [*CAPTIONED, "evaluate.enabled=true"]


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (other_class_names, "{root}/test/Red is not one of the class folders of {root}/train: blue, green, red"),
        (unreadable_validation_images, "none of 4 validation samples can be read, such as {root}/val/"),
        (label_that_training_shards_lack, "{root}/test.tar: label '2' is not in the training set"),
        (misspelt_folder_in_a_validation_list, "none of 2 test samples can be read, such as {root}/clips/"),
        (label_that_training_captions_lack, "{root}/captions.jsonl, line 20: label 'cat' is not in the training set"),
    ],
)
def test_held_out_data_that_cannot_be_evaluated_is_an_error_before_the_first_step(
    prepare: Callable[[Path], Case], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run_dir = tmp_path / "data", tmp_path / "run"
    root.mkdir()
    modality, settings = prepare(root)
    command = ["--modality", modality, "--run-dir", str(run_dir), *settings, f"data.root={root}"]
    (tmp_path / "empty.yaml").write_text("{}")
    command += ["--config", str(tmp_path / "empty.yaml")]
    for more in ([], ["--dry-run"], ["--slurm", "local", "--slurm-dry-run"]):
        assert launch.main([*command, *more]) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert sentence.format(root=root) in said, more
    assert not (run_dir / "config.yaml").exists()


def test_a_few_unreadable_samples_are_announced_or_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_class_images(tmp_path / "data", {"train": 20, "val": 4, "test": 4})
    (tmp_path / "data" / "test" / "red" / "0.png").write_bytes(b"")
    command = ["--modality", "image", "--run-dir", str(tmp_path / "run"), *IMAGES, f"data.root={tmp_path / 'data'}"]
    said = f"1 of 4 test samples cannot be read, such as {tmp_path / 'data' / 'test' / 'red' / '0.png'}: "
    assert launch.main([*command, "--dry-run", "data.max_bad_fraction=0.04"]) == 0
    assert f"evaluation: {said}" in "".join(capsys.readouterr().err.splitlines())
    assert launch.main([*command, "--dry-run"]) == 1
    error = capsys.readouterr().err
    assert f"error: data: {said}" in error
    assert "That is more than data.max_bad_fraction=0.01 of 28 samples allows" in error


def test_a_split_that_the_evaluation_does_not_read_may_be_unreadable(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("val", 3), ("test", 3)):
        write_images(tmp_path, [f"{split}/{number}.png" for number in range(count)])
    for path in (tmp_path / "val").iterdir():
        path.write_bytes(b"")
    notes = evaluation_notes(*launch.resolve("image", {}, [*IMAGES, f"data.root={tmp_path}"]))
    assert notes == ["The data has no labels, so no task is measured."]


def test_a_label_that_is_no_number_is_an_error_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["--modality", "own_functions:Badged", "--run-dir", str(tmp_path / "run"), *TINY]) == 1
    assert "data: a train sample cannot be evaluated: TypeError" in capsys.readouterr().err


def test_a_run_first_says_which_scores_its_labels_do_not_allow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_class_images(tmp_path / "data", {"train": 24, "val": 6, "test": 6})
    function = "evaluate.functions=[{function: own_functions:nearest_mean, label: colour}]"
    modality, command = "image", [*IMAGES, f"data.root={tmp_path / 'data'}", function]
    assert launch.main(["--modality", modality, "--run-dir", str(tmp_path / "run"), *command, "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "class/low_shot_12: 3 of 3 classes have fewer than 12 labels among the 24 training samples; the probe " in said
    )
    assert "class/low_shot_1pct: trained on 12 % of the 24 labels, as each class needs at least one" in said
    assert "The first train, validation, test samples have no label 'colour', so it may not be measured" in said


def test_an_unlabelled_validation_split_is_announced(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        with tarfile.open(tmp_path / "train" / f"{split}.tar", "w") as tar:
            for number in range(count):
                members = {".png": png(f"{number}")} | ({} if split == "val" else {".cls": b"%d" % (number % 2)})
                for ending, content in members.items():
                    (tmp_path / "member").write_bytes(content)
                    tar.add(tmp_path / "member", f"{number}{ending}")
    settings = [*IMAGES[1:], "data.source=webdataset", f"data.root={tmp_path / 'train'}"]
    notes = evaluation_notes(*launch.resolve("image", {}, settings))
    assert "class is not measured: no sample of the validation split is labelled with a number" in notes


@pytest.mark.parametrize("labelled", [True, False])
def test_the_splits_of_the_evaluation_list_no_folder_again(
    labelled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = ("a/i", "b/j", "a/k", "b/l") if labelled else ("a/i", "a/j", "a/k", "a/l")
    write_images(tmp_path, [f"{folders[number % 4]}/{number}.png" for number in range(60)])
    config, modality = launch.resolve("image", {}, [*IMAGES, f"data.root={tmp_path}"])
    listed: Counter[str] = Counter()
    hashed: list[int] = []
    scandir, carve = os.scandir, carved_codes

    def counted(path: Any) -> Any:
        listed[str(path)] += 1
        return scandir(path)

    def carved(names: Any, count: int, *arguments: Any) -> Any:
        hashed.append(count)
        return carve(names, count, *arguments)

    monkeypatch.setattr("os.scandir", counted)
    monkeypatch.setattr("modalities.storage.folders.carved_codes", carved)
    open_split(modality, "train")
    before = dict(listed)
    announce_evaluation(config, modality)
    assert {path: listed[path] for path in before} == before
    assert hashed == [60]


def test_the_splits_of_the_evaluation_read_no_list_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    _, settings = misspelt_folder_in_a_validation_list(tmp_path / "data")
    (tmp_path / "data" / "val.csv").write_text("0.gif 0\n1.gif 1\n")
    (tmp_path / "data" / "train.csv").write_text("".join(f"{number}.gif {number % 2}\n" for number in range(2, 8)))
    config, modality = launch.resolve("video", {}, [*settings, f"data.root={tmp_path / 'data'}"])
    read: Counter[Path] = Counter()

    def counted(source: Path, *arguments: Any) -> VideoList:
        read[source] += 1
        return read_list(source, *arguments)

    monkeypatch.setattr("modalities.video.lists.read_list", counted)
    open_split(modality, "train")
    announce_evaluation(config, modality)
    assert set(read.values()) == {1}
    assert len(read) == 2
