"""What commands say of the data as they start, and when a resumed run finds other data."""

import json
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pictures import write_class_images, write_images
from runs import arguments
from tiny import Noise, NoiseConfig

from jepa import launch
from jepa.checkpoint import latest
from jepa.config import build
from jepa.console import warn_once
from jepa.data import open_split
from jepa.data.summary import counted, generated_line, say_data, summary_lines
from jepa.evaluate.__main__ import main as evaluate
from jepa.probe.protocol import EvaluateConfig
from jepa.training.data_record import evaluated_data_change, record_data
from modalities.image import Image, ImageConfig
from modalities.storage.folders import FileKind, open_folder
from modalities.video.config import VideoConfig

IMAGES = FileKind("images", (".png",))
FEW = ["steps=2", "optim.batch_size=4", "compute.workers=0", "compute.device=cpu", "log_every=2"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = write_class_images(tmp_path / "photos", {"train": 12, "val": 6, "test": 6})
    (root / "train" / "red" / "note.txt").touch()
    return root


def said(capsys: pytest.CaptureFixture[str], command: Sequence[str]) -> list[str]:
    """The lines about the data that `jepa launch` prints."""
    assert launch.main(command) == 0
    return [
        line for line in capsys.readouterr().err.splitlines() if line.startswith(("train:", "test:", "warning: the"))
    ]


def test_a_run_a_dry_run_and_an_evaluation_say_what_they_read(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepa.cost.flops.DRAWS", 1)
    train = f"train: 12 images in 3 classes (blue, green, red) below {photos / 'train'}; passed over: 1 .txt"
    test = f"test: 6 images in 3 classes (blue, green, red) below {photos / 'test'}"
    command = arguments(tmp_path / "run", photos, *FEW)
    assert said(capsys, [*command, "--dry-run", "evaluate.enabled=true"]) == [train, test]
    assert said(capsys, command) == [train]
    assert evaluate([str(tmp_path / "run"), "--task", "class/knn"]) == 0
    assert capsys.readouterr().err.splitlines()[:3:2] == [train, test]
    assert json.loads((tmp_path / "run" / "data.json").read_text())["samples"] == 12

    (tmp_path / "run" / "data.json").write_text('{"samples": 12, "digest": "of other names"}')
    assert evaluate([str(tmp_path / "run"), "--task", "class/knn"]) == 0
    note = f"the data is not that on which {tmp_path / 'run'} was trained: it now has 12 other images below"
    assert note in capsys.readouterr().err


def test_warnings_of_a_modality_are_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image(build(ImageConfig, [{"source": "folder", "root": str(write_images(tmp_path, ["a.png", "b.png"]))}]))
    monkeypatch.setattr(image, "data_warnings", lambda: ["the stored values are odd"])
    for _ in range(2):  # as a run and the evaluation after it
        say_data(image, EvaluateConfig(enabled=False))
    assert capsys.readouterr().err.count("warning: the stored values are odd\n") == 1


def test_a_resumed_run_warns_once_that_its_data_has_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, run_dir = write_images(tmp_path / "photos", [f"{i}.png" for i in range(12)]), tmp_path / "run"

    def warning() -> str:
        record_data(run_dir, open_folder(photos, "train", IMAGES, Path, None).samples)
        return capsys.readouterr().err

    assert warning() == ""
    write_images(photos, ["more.png"])
    assert warning() == ""  # there is no checkpoint yet
    latest(run_dir).parent.mkdir()
    latest(run_dir).touch()
    assert warning() == ""
    (photos / "0.png").rename(photos / "new.png")
    assert re.search(r"it now has 13 other images below \S+; the order of samples differs", warning())
    (photos / "new.png").unlink()
    assert warning().startswith(
        "warning: the training data has changed since the run was started or last resumed: it had 13 images and now "
        "has 12; "
    )
    assert warning() == ""


def test_an_evaluation_opens_training_samples_for_a_record_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(self: Noise, split: str) -> Any:
        raise FileNotFoundError("no folder train")

    monkeypatch.setattr(Noise, "dataset", missing)
    modality = Noise(NoiseConfig(samples=7))
    assert evaluated_data_change(tmp_path, modality) == ""
    (tmp_path / "data.json").write_text('{"samples": 7, "digest": ""}')
    change = "it has no training samples to compare (data: no folder train)"
    assert evaluated_data_change(tmp_path, modality) == change


def test_a_digest_is_of_names_below_the_root_and_of_their_order(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(20)]

    def digest(root: Path) -> str:
        return open_folder(root, "train", IMAGES, Path, None).samples.digest()  # type: ignore[attr-defined]

    first, second = (digest(write_images(tmp_path / name, names)) for name in ("one", "two"))
    assert first == second
    (tmp_path / "two" / "0.png").rename(tmp_path / "two" / "00.png")
    assert digest(tmp_path / "two") != first


def test_samples_of_any_plug_in_are_counted(tmp_path: Path) -> None:
    modality = Noise(NoiseConfig(samples=7))
    assert summary_lines(modality) == ["train: 7 samples"]
    record_data(tmp_path, modality.dataset("train"))
    assert json.loads((tmp_path / "data.json").read_text()) == {"samples": 7, "digest": ""}


def test_a_split_is_opened_once_and_is_not_pickled_with_the_modality(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    dataset = Noise.dataset
    monkeypatch.setattr(Noise, "dataset", lambda self, split: opened.append(split) or dataset(self, split))
    modality = Noise(NoiseConfig(samples=7))
    assert open_split(modality, "train") is open_split(modality, "train")
    summary_lines(modality, ("train", "test"))
    open_split(pickle.loads(pickle.dumps(modality)), "train")
    assert opened == ["train", "test", "train"]


def test_a_damaged_record_of_the_data_is_reported_and_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in ("", "[]", '{"samples": 7}'):
        (tmp_path / "data.json").write_text(content)
        warn_once.cache_clear()
        record_data(tmp_path, Noise(NoiseConfig(samples=7)).dataset("train"))
        assert "data.json is damaged, so this run cannot tell whether" in capsys.readouterr().err
        assert json.loads((tmp_path / "data.json").read_text()) == {"samples": 7, "digest": ""}


def test_generated_data_is_described_without_being_generated() -> None:
    line = generated_line(ImageConfig(source="scenes"))
    assert line == "generated scenes: 20,000 for train, 2,000 for validation, 2,000 for test"
    assert generated_line(VideoConfig(source="scenes")).startswith("generated scenes: 4,000 for train")
    assert generated_line(ImageConfig(source="folder", root=Path("x"))) == generated_line(NoiseConfig()) == ""


def test_what_is_passed_over_is_counted_by_ending_and_long_lists_are_cut() -> None:
    found = {".heic": 45, "without ending": 5, "the folder extra": 1}
    assert counted(found) == "45 .heic, 5 without ending, the folder extra"
    assert counted({f".{letter}": 2_000 for letter in "abcdefgh"}).endswith("2,000 .f, 2 more kinds")
