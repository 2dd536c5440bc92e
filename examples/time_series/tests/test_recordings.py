"""Folders of CSV files: reading, resampling, and errors that name the line."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from jepa.data.summary import summary_lines
from jepa.modality import BadSampleError, Split
from jepa.testing import check_modality
from jepa_time_series.modality import TimeSeries, TimeSeriesConfig
from jepa_time_series.recordings import RecordingFormat, open_recordings, read_recording

CHANNELS = ("a_x", "a_y", "b")
FORMAT = RecordingFormat(CHANNELS, rate=10.0, length=8)


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


def test_a_folder_of_csv_files_passes_the_contract_check(tmp_path: Path) -> None:
    config = TimeSeriesConfig(root=folder(tmp_path), channels=CHANNELS, seconds=0.8, rate=10, patch=2, centred=())
    modality = TimeSeries(config)
    check_modality(modality)
    assert [task.classes for task in modality.tasks] == [("run", "walk")]
    sample = modality.dataset("train")[6]
    assert sample.labels == {"class": 1}
    assert modality.evaluation_view(sample.inputs)[1].tolist() == [True, True, False]


def test_columns_may_come_in_any_order_and_missing_channels_are_nan(tmp_path: Path) -> None:
    path = write(tmp_path / "one.csv", "b, a_x", [f"{10 + row},{row}" for row in range(9)])
    read = read_recording(path, FORMAT)
    assert read.dtype == torch.float32
    assert read[0].tolist() == list(range(9))
    assert read[1].isnan().all()
    assert read[2].tolist() == list(range(10, 19))


@pytest.mark.parametrize("text", ["b;a_x\n3;1\n4;2\n", "\ufeffb,a_x\r\n3,1\r\n4,2\r\n", 'b\t"a_x"\n3\t1\n"4"\t2\n'])
def test_columns_may_be_separated_by_other_delimiters_and_follow_a_byte_order_mark(text: str, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_bytes(text.encode())
    read = read_recording(tmp_path / "one.csv", RecordingFormat(FORMAT.channels, FORMAT.rate, length=2))
    assert read[[0, 2]].tolist() == [[1, 2], [3, 4]]


def test_rows_are_resampled_by_their_time(tmp_path: Path) -> None:
    moments = np.sort(np.random.default_rng(0).uniform(5, 7, 200))
    rows = [f"{moment:.6f},{3 * moment - 1:.6f}" for moment in moments]
    read = read_recording(write(tmp_path / "one.csv", "time,b", rows), FORMAT)[2]
    expected = 3 * (moments[0] + np.arange(len(read)) / 10) - 1
    assert 18 <= len(read) <= 20
    np.testing.assert_allclose(read, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("header", "rows", "reason"),
    [
        ("a_x,c", some_rows(2), "line 1: unknown column 'c'; allowed: a_x, a_y, b and time"),
        ("a_x,a_x", some_rows(2), "line 1: needs columns of different names"),
        ("time", some_rows(1), "line 1: needs columns"),
        ("a_x,b", [*some_rows(2, 3), "1.0,much"], "line 5: 'much' is not a finite number"),
        ("a_x,b", [*some_rows(2, 3), "1.0,nan"], "line 5: 'nan' is not a finite number"),
        ("a_x,b", [*some_rows(2, 2), "1.0"], "line 4: 1 cells for 2 named columns"),
        ("time,b", ["0,1", "0.1,1", "0.1,2"], "line 4: time 0.1 does not follow 0.1"),
        ("time,b", ["0,1", "0.5,1"], "6 samples at 10 Hz, but a window needs 8"),
        ("time,b", [], "0 samples at 10 Hz"),
        (
            "time,b",
            ["1e18,1", "1.000000008e18,1"],
            "time spans 8,000,000,000 seconds in 2 lines; the column 'time' must",
        ),
        ("a_x,b", some_rows(2, 7), "7 samples at 10 Hz, but a window needs 8"),
    ],
)
def test_a_bad_file_is_a_bad_sample_that_names_the_line(
    tmp_path: Path, header: str, rows: list[str], reason: str
) -> None:
    path = write(tmp_path / "one.csv", header, rows)
    with pytest.raises(BadSampleError) as caught:
        read_recording(path, FORMAT)
    assert caught.value.source == str(path)
    assert reason in caught.value.reason


def test_a_binary_file_is_a_bad_sample(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_bytes(b"a_x\n\xff\xfe\n")
    with pytest.raises(BadSampleError, match="cannot be read as CSV"):
        read_recording(path, FORMAT)


def test_empty_folders_and_unknown_classes_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no recordings below .*\.csv"):
        open_recordings(tmp_path, "test", FORMAT)
    root = folder(tmp_path / "data")
    write(root / "test" / "swim" / "0.csv", "b", some_rows(1))
    with pytest.raises(ValueError, match=r"swim .*: run, walk"):
        open_recordings(root, "test", FORMAT)


def test_folders_are_described_and_may_be_no_classes(tmp_path: Path) -> None:
    root = folder(tmp_path)
    settings = {"root": root, "channels": ("acc_x", "acc_y"), "seconds": 1.0, "rate": 8.0, "patch": 4}
    settings["scales"] = {"acc": 1.0}
    labelled, plain = (TimeSeries(TimeSeriesConfig(**settings, labels=which)) for which in ("auto", "none"))  # type: ignore[arg-type]
    assert " recordings in 2 classes (" in summary_lines(labelled)[0]
    assert " recordings without classes below " in summary_lines(plain)[0]
    assert plain.tasks == []


def test_files_beside_class_folders_are_unlabelled(tmp_path: Path) -> None:
    write(tmp_path / "train" / "one.csv", "b", some_rows(1))
    samples, classes = open_recordings(tmp_path, "train", FORMAT)
    assert (samples[0].labels, classes) == ({}, ())
    write(tmp_path / "train" / "run" / "two.csv", "b", some_rows(1))
    write(tmp_path / "test" / "three.csv", "b", some_rows(1))
    write(tmp_path / "validation" / "run" / "four.csv", "b", some_rows(1))
    for split, labels in (("train", [{}, {"class": 0}]), ("test", [{}]), ("validation", [{"class": 0}])):
        samples, classes = open_recordings(tmp_path, cast("Split", split), FORMAT)
        assert ([samples[index].labels for index in range(len(samples))], classes) == (labels, ("run",))
