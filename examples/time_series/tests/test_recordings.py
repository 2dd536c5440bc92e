"""Folders of CSV files: what is read, how it is resampled, and how mistakes are told."""

from pathlib import Path

import numpy as np
import pytest
import torch

from jepa.modality import BadSampleError
from jepa.testing import check_modality
from jepa_time_series.modality import TimeSeries, TimeSeriesConfig
from jepa_time_series.recordings import Layout, Recordings, read_recording

CHANNELS = ("a_x", "a_y", "b")
LAYOUT = Layout(CHANNELS, rate=10.0, length=8)


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def some_rows(columns: int, count: int = 12, seed: int = 0) -> list[str]:
    values = np.random.default_rng(seed).normal(size=(count, columns))
    return [",".join(f"{value:.4f}" for value in row) for row in values]


def folder(root: Path) -> Path:
    for split in ("train", "validation", "test"):
        for name in ("run", "walk"):
            for number in range(6):
                columns = CHANNELS[: 2 + number % 2]
                path = root / split / name / f"{number}.csv"
                write(path, ",".join(columns), some_rows(len(columns), seed=hash_of(split, name, number)))
    return root


def hash_of(split: str, name: str, number: int) -> int:
    return 100 * ("train", "validation", "test").index(split) + 10 * len(name) + number


def test_a_folder_of_ones_own_keeps_the_contract(tmp_path: Path) -> None:
    config = TimeSeriesConfig(
        source="folder", root=folder(tmp_path), channels=CHANNELS, seconds=0.8, rate=10, patch=2, centred=()
    )
    modality = TimeSeries(config)
    check_modality(modality)
    assert [task.classes for task in modality.tasks] == [["run", "walk"]]
    sample = modality.dataset("train")[6]
    assert sample.labels == {"class": 1}
    assert modality.evaluation_view(sample.inputs)[1].tolist() == [True, True, False]


def test_columns_may_come_in_any_order_and_absent_ones_are_not_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "one.csv", "b, a_x", [f"{10 + row},{row}" for row in range(9)])
    read = read_recording(path, LAYOUT)
    assert read.dtype == torch.float32
    assert read[0].tolist() == list(range(9))
    assert read[1].isnan().all()
    assert read[2].tolist() == list(range(10, 19))


def test_time_decides_where_samples_lie(tmp_path: Path) -> None:
    moments = np.sort(np.random.default_rng(0).uniform(5, 7, 200))
    rows = [f"{moment:.6f},{3 * moment - 1:.6f}" for moment in moments]
    read = read_recording(write(tmp_path / "one.csv", "time,b", rows), LAYOUT)[2]
    expected = 3 * (moments[0] + np.arange(len(read)) / 10) - 1
    assert 18 <= len(read) <= 20
    np.testing.assert_allclose(read, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("header", "rows", "told"),
    [
        ("a_x,c", some_rows(2), "line 1: unknown column 'c'; allowed: a_x, a_y, b and time"),
        ("a_x,a_x", some_rows(2), "line 1: needs columns of different names"),
        ("time", some_rows(1), "line 1: needs columns"),
        ("a_x,b", [*some_rows(2, 3), "1.0,much"], "line 5: 'much' is not a finite number"),
        ("a_x,b", [*some_rows(2, 3), "1.0,nan"], "line 5: 'nan' is not a finite number"),
        ("a_x,b", [*some_rows(2, 2), "1.0"], "line 4: 1 cells, but 2 columns have a name"),
        ("time,b", ["0,1", "0.1,1", "0.1,2"], "line 4: time 0.1 does not follow 0.1"),
        ("time,b", ["0,1", "0.5,1"], "6 samples at 10 Hz, but a window needs 8"),
        ("time,b", [], "0 samples at 10 Hz"),
        ("a_x,b", some_rows(2, 7), "7 samples at 10 Hz, but a window needs 8"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path: Path, header: str, rows: list[str], told: str) -> None:
    path = write(tmp_path / "one.csv", header, rows)
    with pytest.raises(BadSampleError) as caught:
        read_recording(path, LAYOUT)
    assert caught.value.source == str(path)
    assert told in caught.value.reason


def test_what_is_no_text_is_a_bad_sample(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_bytes(b"a_x\n\xff\xfe\n")
    with pytest.raises(BadSampleError, match="cannot be read as CSV"):
        read_recording(path, LAYOUT)


def test_folders_that_cannot_serve_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \.csv files below .*test"):
        Recordings(tmp_path, "test", LAYOUT)
    root = folder(tmp_path / "data")
    write(root / "test" / "swim" / "0.csv", "b", some_rows(1))
    with pytest.raises(ValueError, match="has no class 'swim'; it has run, walk"):
        Recordings(root, "test", LAYOUT)


def test_files_without_folders_of_classes_have_no_label(tmp_path: Path) -> None:
    write(tmp_path / "train" / "one.csv", "b", some_rows(1))
    assert Recordings(tmp_path, "train", LAYOUT)[0].labels == {}
