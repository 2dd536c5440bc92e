"""Tables of captions: rows that must not merge, delimiters, one image under several paths, ids of COCO."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import write_images

from jepa.modality import BadSampleError, Split
from modalities.image_text.captions.files import CaptionedFiles
from modalities.image_text.captions.sources import open_captions

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
NAMES = [f"{number}.png" for number in range(8)]


def read(root: Path, source: str = "folder") -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Captions by image, and reasons of bad samples by their location in the file."""
    captions: dict[str, tuple[str, ...]] = {}
    faults = {}
    for split in SPLITS:
        samples = open_captions(source, root, split, min_side=4).samples
        assert isinstance(samples, CaptionedFiles)
        for index in range(len(samples)):
            try:
                inputs = samples[index].inputs
                captions[samples.names[index]] = inputs.captions
            except BadSampleError as error:
                faults[error.source.partition(", ")[2]] = error.reason
    return captions, faults


@pytest.mark.parametrize(
    ("texts", "bad"),
    [
        (["a", '"Untitled', "b", '"Happy cake', "c", 'a 12" pizza', '"hello" on a sign', "d"], [3, 4, 5]),
        (["a", '"Untitled', "b", 'a pizza of 12"', "c", "d", "e", "f"], [3, 4, 5]),
        (["a", "b", "c", "d", "e", "f", '"Untitled', 'a pizza of 12"'], [8, 9]),
    ],
)
@pytest.mark.parametrize("order", [("image", "caption"), ("caption", "image"), ("image", "caption", "id")])
def test_an_open_quote_is_text_between_tabs_and_makes_bad_rows_between_commas(
    texts: list[str], bad: list[int], order: tuple[str, ...], tmp_path: Path
) -> None:
    write_images(tmp_path, NAMES)
    rows = [{"image": name, "caption": text, "id": "x"} for name, text in zip(NAMES, texts, strict=True)]
    for ending, delimiter in ((".csv", ","), (".tsv", "\t")):
        lines = [delimiter.join(order), *(delimiter.join(row[column] for column in order) for row in rows)]
        (tmp_path / f"list{ending}").write_text("\n".join(lines))
    assert read(tmp_path / "list.tsv") == ({name: (text,) for name, text in zip(NAMES, texts, strict=True)}, {})
    captions, faults = read(tmp_path / "list.csv")
    assert faults == {f"line {n}": "not a table row: a misplaced quote encloses several lines" for n in bad}
    assert [*captions] != NAMES
    assert captions.keys() == {name for number, name in enumerate(NAMES, start=2) if number not in bad}


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_the_delimiter_is_found_in_the_header(delimiter: str, tmp_path: Path) -> None:
    write_images(tmp_path, NAMES)
    rows = [("filepath", "title"), *((name, f'"{name}: ; , |"') for name in NAMES)]
    (tmp_path / "list.csv").write_text("\n".join(delimiter.join(row) for row in rows))
    assert read(tmp_path / "list.csv") == ({name: (f"{name}: ; , |",) for name in NAMES}, {})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.csv", "a.png;x", r"among: a\.png, x \(separated by semicolons\)"),
        ("list.tsv", "image,caption", r"among: image,caption \(separated by tabs\)"),
        ("list.csv", "image,caption,text,image", r"two columns are named 'image'"),
        ("list.csv", "i\0m\0a\0g\0e\0", "line 1: not UTF-8"),
    ],
)
def test_an_unusable_header_names_the_delimiter(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        open_captions("folder", tmp_path / name, "train", min_side=4)


def test_an_image_under_several_paths_is_one_image_and_cannot_be_in_two_splits(tmp_path: Path) -> None:
    nfd = unicodedata.normalize("NFD", "caf\u00e9.png")
    write_images(tmp_path, ["a.png", nfd])
    paths = ["a.png", "./a.png", ".//a.png", f"{tmp_path}/a.png", "caf\u00e9.png", f"./{nfd}"]
    lines = [json.dumps({"image": path, "caption": str(number)}) for number, path in enumerate(paths)]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    assert read(tmp_path / "list.jsonl") == ({"a.png": ("0", "1", "2", "3"), "caf\u00e9.png": ("4", "5")}, {})
    for first, second in (("a.png", f"{tmp_path}//a.png"), ("caf\u00e9.png", nfd)):
        (tmp_path / "leak.csv").write_text(f"image,caption,split\n{first},x,train\n{second},x,test\n")
        with pytest.raises(ValueError, match=r"leak\.csv, line 3: .* is in test but also in train"):
            open_captions("folder", tmp_path / "leak.csv", "train", min_side=4)


PADDED = "{:06d}".format


@pytest.mark.parametrize(
    ("of_image", "of_annotation"),
    [(str, int), (int, str), (float, int), (int, float), (PADDED, int), (int, PADDED), (PADDED, str)],
)
def test_ids_match_whether_they_are_text_or_numbers(
    of_image: Callable[[int], object], of_annotation: Callable[[int], object], tmp_path: Path
) -> None:
    write_images(tmp_path, NAMES)
    images = [{"id": of_image(number), "file_name": name} for number, name in enumerate(NAMES)]
    notes = [{"image_id": of_annotation(number), "caption": str(number)} for number in range(len(NAMES) + 1)]
    (tmp_path / "list.json").write_text(json.dumps({"images": images, "annotations": notes}))
    captions, faults = read(tmp_path / "list.json", "coco")
    assert captions == {name: (str(number),) for number, name in enumerate(NAMES)}
    assert faults == {"annotations[8]": f"image_id {of_annotation(8)!r} is not among the images"}


def test_ids_that_differ_only_in_zeros_stay_different_and_unmatched_ids_are_named(tmp_path: Path) -> None:
    write_images(tmp_path, NAMES)
    images = [{"id": name, "file_name": file} for name, file in (("7", "0.png"), ("007", "1.png"))]
    notes = [{"image_id": name, "caption": str(name)} for name in (7, "007")]
    (tmp_path / "list.json").write_text(json.dumps({"images": images, "annotations": notes}))
    assert read(tmp_path / "list.json", "coco") == ({"0.png": ("7",), "1.png": ("007",)}, {})
    (tmp_path / "list.json").write_text(json.dumps({"images": images, "annotations": [{**notes[0], "image_id": "x7"}]}))
    with pytest.raises(
        ValueError, match=r"no image has a caption .* first of 1 bad entries: .*\[0\]: image_id 'x7' is"
    ):
        open_captions("coco", tmp_path / "list.json", "train", min_side=4)


def test_a_label_counts_once_as_a_number_and_as_text(tmp_path: Path) -> None:
    write_images(tmp_path, NAMES)
    labels = [3, 3.0, "3", "03", "3.0", 4]
    rows = [{"image": name, "caption": "x", "label": label} for name, label in zip(NAMES, labels, strict=False)]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert open_captions("folder", tmp_path, "train", min_side=4).classes == ("3", "4")
    assert len(read(tmp_path)[0]) == len(labels)
