"""`jepa data check`: bad samples and their reasons, structure, speed, and the mosaic, for every modality."""

import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairs import Pairs, PairsConfig
from PIL import Image
from tiny import Noise, NoiseConfig, NoiseSamples
from torch import Tensor

from jepa.data_check import command
from jepa.data_check.lines import size_range
from jepa.data_check.reading import spread
from jepa.embedding.rows import BadRow, Chain, RowDataset, Rows
from jepa.evaluate.cross_modal.samples import PairDataset
from jepa.evaluate.reading import ViewDataset
from jepa.modality import BadSampleError


class Nameless(Noise):
    """Noise of which no view can be made, for a reason that names no sample."""

    def evaluation_view(self, inputs: Tensor) -> Tensor:
        raise BadSampleError("", "too dark")


class NamelessPairs(Pairs):
    """The same for pairs."""

    def matches(self, inputs: Any) -> Any:
        raise BadSampleError("", "too dark")


COLOURS = [(210, 40, 30), (20, 180, 70), (60, 90, 220)]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def write_photos(root: Path, count: int = 9) -> Path:
    """Images of one colour each, in a folder per colour, in splits for training and test."""
    for split in ("train", "test"):
        for number in range(count):
            path = root / split / f"colour{number % 3}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40 + number, 30), COLOURS[number % 3]).save(path)
    return root


def write_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Exit status and printed lines."""
    status = command.main(["check", *arguments])
    printed = capsys.readouterr()
    return status, [*printed.out.splitlines(), *printed.err.splitlines()]


def test_good_images_give_their_structure_sizes_speed_and_a_mosaic_in_their_own_colours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_photos(tmp_path / "photos")
    status, lines = check(capsys, str(root), "--samples", "6", "data.image_size=32")
    assert status == 0
    assert lines[0] == "modality: image; source: folder"  # both found by what the folder holds
    assert f"3 classes (colour0, colour1, colour2) below {root / 'train'}" in lines[1]
    assert any(line.startswith("read: 6 of ") and line.endswith(" 6 of 9 test") for line in lines)
    assert any(line.startswith("size as read: 3 x 30 x 4") for line in lines)
    assert any(line.startswith("label class: train 3 of 3 classes in 6 samples; validation ") for line in lines)
    assert any(line.startswith("speed: ") and " images a second and core" in line for line in lines)
    with Image.open("data_check.png") as picture:
        page = np.asarray(picture)
    cells = [page[80, 80 + 164 * column].astype(int) for column in range(6)]
    seen = [np.abs(np.array(COLOURS) - cell).max(axis=1) for cell in cells]  # [6, 3]
    assert {int(distances.argmin()) for distances in seen} == {0, 1, 2}
    assert all(distances.min() <= 1 for distances in seen)
    assert lines[-1].endswith("samples that were read are good")


def test_bad_images_are_listed_with_reasons_and_give_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_photos(tmp_path / "photos")
    (root / "train" / "colour0" / "0.png").write_bytes(b"nothing")
    (root / "test" / "colour1" / "odd\nname.png").write_bytes(b"")
    status, lines = check(capsys, "--samples", "0", "--modality", "image", f"data.root={root}")
    assert status == 1
    assert f"bad: {root}/train/colour0/0.png: not an image of a known format" in lines
    assert rf"bad: {root}/test/colour1/odd\nname.png: not an image of a known format" in lines
    assert lines[-1].startswith("bad samples: 1 of 2 validation (50.0%), 1 of 10 test (10.0%); a run skips")


def test_values_in_few_levels_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(10):
        values = np.arange(1024, dtype=np.uint16).reshape(32, 32)
        Image.fromarray(values).save(write_folder(tmp_path / "deep") / f"{number}.png")
    status, lines = check(capsys, str(tmp_path / "deep"), "data.image_size=32")
    assert status == 0
    assert any("warning: almost all values" in line and "data.value_range=[0,1023]" in line for line in lines)


def test_clips_are_rows_of_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        clip = np.broadcast_to(np.array(COLOURS[number], np.uint8), (12, 24, 32, 3))
        np.save(write_folder(tmp_path / "clips") / f"{number}.npy", clip)
    sizes = ["data.image_size=32", "data.frames=8", "data.tubelet=2"]
    options = ["--mosaic", "clips.png", *sizes]
    status, lines = check(capsys, str(tmp_path / "clips"), *options)
    assert status == 0
    assert "size as read: frames 12, fps 25, height 24, width 32" in lines
    with Image.open("clips.png") as page:
        assert page.size == (8 * 164 + 4, 3 * 164 + 4)


def test_captions_are_printed_below_their_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, root = [], write_folder(tmp_path / "captioned")
    for number in range(4):
        Image.new("RGB", (32, 32), COLOURS[number % 3]).save(root / f"{number}.png")
        rows.append({"image": f"{number}.png", "captions": [f"a colour, number {number}", "a square"]})
    rows[3]["captions"] = []
    (root / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, lines = check(capsys, str(root), "--samples", "0", "--modality", "image-text")
    assert status == 1
    assert any(line.startswith("picture 1: a colour, number ") and line.endswith(" | a square") for line in lines)
    assert any(line.startswith("bad: ") and "caption" in line for line in lines)


def test_custom_modalities_are_checked_too(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = check(capsys, "--modality", "tiny:Noise", "data.bad=[3]", "--samples", "0")
    assert status == 1
    assert sum(line.startswith("bad: ") for line in lines) >= 1
    assert "no mosaic: no training sample can be read, or the modality draws no pictures" in lines


def test_a_view_that_does_not_know_its_sample_leaves_the_name_to_the_core() -> None:
    samples = NoiseSamples(NoiseConfig(samples=5))
    read = ViewDataset(Nameless(samples.config), samples, [1, 3])[1]
    assert (read.source, read.reason) == ("[3]", "too dark")
    pairs = PairDataset(NamelessPairs(PairsConfig()), samples, [1, 3], [])[1]
    assert (pairs.source, pairs.reason) == ("[3]", "too dark")
    chain = Chain([("test", samples)])
    row = RowDataset(Rows(Nameless(samples.config), chain, ()), array("q", [1, 3]))[1]
    assert isinstance(row, BadRow)
    assert (row.source, row.reason) == ("test[3]", "too dark")


def test_a_recipe_of_a_former_run_is_read_as_by_a_launch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    former = tmp_path / "config.yaml"
    former.write_text("modality: image\nrun_dir: r\ncurriculum: {pixel_weight: 0.5, latent_from: 0.85}\n")
    root = write_photos(tmp_path / "photos")
    status, _ = check(capsys, str(root), "--modality", "image", "--config", str(former), "--samples", "2")
    assert status == 0


def test_what_cannot_be_checked_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(write_photos(tmp_path / "photos"))
    folder = ["--modality", "image"]
    (tmp_path / "a.tar").write_bytes(b"")
    for arguments, sentence in (
        ([], "give the PATH of the data, or --modality with settings"),
        ([str(tmp_path / "none")], "none does not exist"),
        ([root, f"data.root={tmp_path}"], "and data.root both name the data; give one of them"),
        ([root, "--config", "tiny"], "--config needs --modality"),
        ([root, "data.image_siz=32"], "unknown key 'data.image_siz', did you mean 'data.image_size'?"),
        ([str(tmp_path / "a.tar")], "the modalities image and image-text and video read"),
        ([root, *folder, "--mosaic", f"{root}/mosaic.png"], "would lie among the data"),
        ([root, *folder, "--mosaic", "/proc/no/mosaic.png"], "/proc/no/mosaic.png cannot be written"),
    ):
        status, lines = check(capsys, *arguments)
        assert status == 1
        assert lines[-1].startswith("error: ")
        assert sentence in lines[-1]
    with pytest.raises(SystemExit):
        command.main(["check", "--samples=-1"])
    assert "-1 is not a whole number from 0" in capsys.readouterr().err


def test_chosen_samples_are_spread_evenly_and_sizes_are_ranges() -> None:
    assert spread(10, 3) == [0, 3, 6]
    assert spread(4, 0) == spread(4, 9) == [0, 1, 2, 3]
    assert spread(0, 5) == []
    assert size_range([(("", 3), ("", 24)), (("", 3), ("", 30)), (("frames", 7),)]) == "3 x 24 to 30; frames 7"
