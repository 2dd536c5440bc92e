"""Lists of videos: one file under several paths, quotes, reasons that name the delimiter."""

import unicodedata
from pathlib import Path

import pytest

from jepa.data.summary import summary_of
from jepa.modality import Split
from modalities.video.lists import open_lists

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def read(root: Path) -> dict[Split, list[tuple[str, object]]]:
    """Paths, relative to the folder of the lists, and labels."""
    folder = root if root.is_dir() else root.parent
    opened = {split: open_lists(root, split, {".mp4"}, str).samples for split in SPLITS}
    return {
        split: [
            (samples[index].inputs.removeprefix(f"{folder}/"), samples[index].labels.get("class"))
            for index in range(len(samples))
        ]
        for split, samples in opened.items()
    }


def test_a_video_under_several_paths_counts_once_but_a_repeated_line_counts_again(tmp_path: Path) -> None:
    names = [f"{number}.mp4" for number in range(40)]
    lines = [f"{path} 1" for name in names for path in (name, f"./{name}", f"{tmp_path}//{name}", name)]
    (tmp_path / "list.csv").write_text("\n".join([*lines, "x.mp4 0"]))
    found = read(tmp_path / "list.csv")
    assert sorted(path for rows in found.values() for path, label in rows if label == 1) == sorted(names * 2)
    assert not {path for path, _ in found["train"]} & {path for path, _ in found["test"]}
    assert all(found.values())


@pytest.mark.parametrize("test", ["./a.mp4 0", "a.mp4 0\nc.mp4 1", "{0}/a.mp4 1", "../{1}/a.mp4 0\n./b.mp4 1\nc.mp4 1"])
def test_splits_of_lists_must_not_share_videos(test: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a.mp4 0\nb.mp4 1\n")
    (tmp_path / "test.csv").write_text(test.format(tmp_path, tmp_path.name))
    for split in SPLITS:
        with pytest.raises(ValueError, match=r"test\.csv: .*a\.mp4 is in test but also in train; one split is allowed"):
            open_lists(tmp_path, split, {".mp4"}, str)


def test_lists_of_the_same_videos_are_allowed_and_noted(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text("a.mp4 0\nb.mp4 1\n" if name == "train.csv" else "./b.mp4 1\na.mp4 0\n")
    samples = open_lists(tmp_path, "train", {".mp4"}, str).samples
    assert summary_of(samples).notes == ("train and test list the same videos",)


def test_a_column_split_takes_precedence_over_the_name_of_the_list(tmp_path: Path) -> None:
    words = ("train", "Training", "VAL", "test")
    rows = "".join(f"{number}.mp4,{number % 2},{words[number % 4]}\n" for number in range(8))
    for name in ("list.csv", "train.csv"):
        (tmp_path / name).write_text(f"path,label,split\n{rows}")
        found = read(tmp_path / name)
        assert found["train"] == [("0.mp4", 0), ("1.mp4", 1), ("4.mp4", 0), ("5.mp4", 1)]
        assert (found["validation"], found["test"]) == ([("2.mp4", 0), ("6.mp4", 0)], [("3.mp4", 1), ("7.mp4", 1)])
    (tmp_path / "unlabelled.csv").write_text("path,split\na.mp4,train\nb.mp4,test\n")
    assert read(tmp_path / "unlabelled.csv")["test"] == [("b.mp4", None)]
    for text, message in (("a.mp4,train\nb.mp4,1", "unknown split '1'"), ("a.mp4,test", "no line has the split train")):
        (tmp_path / "list.csv").write_text(f"path,split\n{text}\n")
        with pytest.raises(ValueError, match=rf"list\.csv: {message}"):
            read(tmp_path / "list.csv")


@pytest.mark.parametrize("reads_labels", [True, False])
def test_videos_with_several_labels_are_noted(reads_labels: bool, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("a.mp4 0\nb.mp4 1\n./a.mp4 1\na.mp4 0\nb.mp4 01\n")
    samples = open_lists(tmp_path, "train", {".mp4"}, str, reads_labels=reads_labels).samples
    note = "train: 1 of the labels belong to videos that also have another label"
    assert summary_of(samples).notes == ((note,) if reads_labels else ())


def test_names_are_found_in_either_unicode_normalisation(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "\u00fcber/caf\u00e9.mp4") for form in ("NFC", "NFD")]
    for number, (listed, stored) in enumerate((forms, forms[::-1], ["\u00fcber/" + forms[1][-9:], forms[0]])):
        (folder := tmp_path / str(number)).mkdir()
        (folder / stored).parent.mkdir()
        (folder / stored).write_text("")
        (folder / "list.csv").write_text(listed)
        samples = open_lists(folder, "train", {".mp4"}, Path).samples
        assert samples[0].inputs.exists()


def test_quotes_are_text_between_tabs_and_must_be_closed_between_commas(tmp_path: Path) -> None:
    rows = [("path", "label", "note"), *((f"{i}.mp4", ('"walk', "run")[i % 2], "x") for i in range(6))]
    (tmp_path / "tabs.tsv").write_text("\n".join("\t".join(row) for row in rows))
    assert open_lists(tmp_path / "tabs.tsv", "train", {".mp4"}, str).classes == ('"walk', "run")
    (tmp_path / "commas.csv").write_text("\n".join(",".join(row) for row in rows))
    with pytest.raises(ValueError, match=r"commas\.csv, line 2: .* has an unclosed quote \(separated by commas\)"):
        read(tmp_path / "commas.csv")


def test_a_line_ends_at_a_line_break_only(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("a\u2028b.mp4 0\nc\x85d.mp4 1\n", encoding="utf-8")
    assert {path for rows in read(tmp_path / "list.csv").values() for path, _ in rows} == {"a\u2028b.mp4", "c\x85d.mp4"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,x\na.mp4,1,x\nb.mp4,1\n", r"line 2: .*\(with commas, line 1 has 3 fields and line 3 has 2\)"),
        ('path;label\na.mp4;"one\ntwo"\n', r"line 2: .*\(with semicolons, line 1 has 2 fields and line 3 has 1\)"),
        ("path\tlabel\na.mov\t1\n", r"line 2: .* is not a video path, such as a\.mp4 \(separated by tabs\)"),
        ("a.mp4|1\n", r"line 1: .* is not a video path, such as a\.mp4 \(separated by spaces\)"),
        ("a.mp4 1\nb.mp4 \udce9\n", "line 2: .* has a label that is not UTF-8"),
        ("\0a\0.\0m\0p\0004", "line 1: not UTF-8"),
    ],
)
def test_a_mistake_names_the_line_and_the_delimiter(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=rf"list\.csv, {message}"):
        read(tmp_path / "list.csv")
