"""Sources of captioned images: lists, tar shards and the files of COCO; their splits, labels and errors."""

import csv
import io
import json
import os
import pickle
import random
import tarfile
import tracemalloc
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import places
import pytest
from hypothesis import given, strategies as st
from pictures import colour_of, png, write_images

from jepa.modality import BadSampleError, Samples, Split
from modalities.image_text.captions.rules import LONGEST, clean_caption
from modalities.image_text.captions.sources import open_captions
from modalities.image_text.captions.table import CaptionEntry, CaptionTableBuilder
from modalities.storage.captioned import CaptionedImage

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
REAL_DATA = places.REAL_DATA / "captions"
Contents = dict[tuple[int, ...], tuple[tuple[str, ...], object]]  # captions and label, by colour


def write_lines(path: Path, lines: Iterable[Mapping[str, object] | str]) -> Path:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def good(samples: Samples) -> list[tuple[tuple[int, ...], tuple[tuple[str, ...], object]]]:
    """Colour, captions and label of every sample that can be read, in order."""
    found = []
    for index in range(len(samples)):
        try:
            sample = samples[index]
        except BadSampleError:
            continue
        assert isinstance(sample.inputs, CaptionedImage)
        colour = tuple(sample.inputs.image[:, 0, 0].tolist())
        found.append((colour, (sample.inputs.captions, sample.labels.get("class"))))
    return found


def bad(samples: Samples) -> list[tuple[str, str]]:
    """Source and reason of every sample that cannot be read."""
    found = []
    for index in range(len(samples)):
        try:
            samples[index]
        except BadSampleError as error:
            found.append((error.source, error.reason))
    return found


def open_all(root: Path, source: str = "folder") -> dict[Split, Contents]:
    return {split: dict(good(open_captions(source, root, split, min_side=4).samples)) for split in SPLITS}


def unlabelled(captions: Mapping[str, Sequence[str]]) -> Contents:
    return {colour_of(name): (tuple(said), None) for name, said in captions.items()}


# Captions


@given(st.text(st.characters(exclude_categories=())) | st.text("a\u0301 \t\0\u1100\u1161\u11a8\u200d", max_size=40))
def test_cleaning_gives_nfc_text_with_single_spaces_and_is_idempotent(text: str) -> None:
    cleaned = clean_caption(text)
    allowed = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs"))
    assert cleaned == unicodedata.normalize("NFC", " ".join(allowed.split()))
    assert clean_caption(cleaned) == cleaned
    cleaned.encode()


def test_long_captions_are_truncated_quickly() -> None:
    for text in ("word " * 10_000, "\u00e9" * 10_000, "e\u0301" * 10_000, "a" + "\u0301" * 500_000, "\0 " * 500_000):
        cleaned = clean_caption(text)
        assert len(cleaned) <= LONGEST
        assert clean_caption(cleaned) == cleaned
    assert clean_caption("e\u0301" * 10_000) == "\u00e9" * LONGEST
    assert clean_caption("x" * (LONGEST - 1) + " y") == "x" * (LONGEST - 1)


# Lists

CAPTIONS = {
    "a.png": ["One, of 'two'.", 'A "quoted" word', "tab\tand\nnewline"],
    "deep/er/b.png": ["\u00fcn\u00ef \u2603 \U0001f600"],
    "c d.png": ["x", "y; z", "line one\r\nline two"],
}
CLEAN = {name: [" ".join(text.split()) for text in said] for name, said in CAPTIONS.items()}


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(columns)
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("form", ["line each", "captions", "both", "shuffled", "csv", "tsv", "byte order mark"])
def test_every_form_of_list_gives_the_same_captions(form: str, tmp_path: Path) -> None:
    write_images(tmp_path, CAPTIONS)
    rows = [(name, said) for name, each in CAPTIONS.items() for said in each]
    if form == "shuffled":  # captions of an image stay in order
        rows = [(name, each[k]) for k in range(3) for name, each in CAPTIONS.items() if k < len(each)]
    match form:
        case "csv":
            write_table(
                tmp_path / "captions.csv", ["id", "Title", " FilePath"], [(1, said, name) for name, said in rows]
            )
        case "tsv":
            write_table(tmp_path / "captions.tsv", ["image", "text"], rows)
        case "captions":
            lines = [{"image": name, "captions": said} for name, said in CAPTIONS.items()]
            write_lines(tmp_path / "captions.jsonl", lines)
        case "both":
            lines = [{"file_name": n, "text": s[0], "captions": [*s, s[0], " "]} for n, s in CAPTIONS.items()]
            write_lines(tmp_path / "captions.jsonl", lines)
        case _:
            file = write_lines(tmp_path / "captions.jsonl", [{"image": name, "caption": said} for name, said in rows])
            if form == "byte order mark":
                file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n\r\n"))
    found = open_all(tmp_path)
    assert {key: value for split in found.values() for key, value in split.items()} == unlabelled(CLEAN)


def test_entries_are_grouped_by_image_as_in_a_dictionary() -> None:
    draw = random.Random(0)
    said = [(f"{draw.randrange(60)}.png", f"caption {draw.randrange(9)}", draw.choice("pq")) for _ in range(400)]
    builder, by_name = CaptionTableBuilder(), dict[str, list[str]]()
    builder.begin(Path("list"), "line {}", None)
    for line, (name, text, _) in enumerate(said):
        builder.add(line, CaptionEntry(name, [text]))
        by_name.setdefault(name, []).append(text)
    table = builder.table()
    assert [table.name(image) for image in range(len(table))] == list(by_name)
    for image, (name, texts) in enumerate(by_name.items()):
        rows = table.order[table.starts[image] : table.starts[image + 1]]
        assert [table.captions[int(row)] for row in rows] == texts
        assert table.source(image) == f"list, line {[row[0] for row in said].index(name)}"


NAMES = [f"{i:03d}.png" for i in range(120)]


def test_carved_splits_are_held_out_without_labels_and_depend_on_names_only(tmp_path: Path) -> None:
    write_images(tmp_path, NAMES)
    write_lines(tmp_path / "captions.jsonl", [{"image": n, "caption": f"{n} {k}"} for k in (0, 1) for n in NAMES])
    write_lines(tmp_path / "half.jsonl", [{"image": n, "caption": f"{n} {k}"} for n in NAMES[::2] for k in (0, 1)])
    found, of_half = open_all(tmp_path), open_all(tmp_path / "half.jsonl")
    everything = [item for split in SPLITS for item in found[split].items()]
    assert len(everything) == len(NAMES)
    assert dict(everything) == unlabelled({name: [f"{name} 0", f"{name} 1"] for name in NAMES})
    for split in SPLITS:
        assert of_half[split]
        assert of_half[split].items() <= found[split].items()


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize("how", ["field", "files", "a file by name"])
@pytest.mark.parametrize("stored", [("train", "val", "test"), ("TRAIN", "test"), ("train", "valid")])
def test_splits_come_from_lines_or_file_names(how: str, stored: tuple[str, ...], ending: str, tmp_path: Path) -> None:
    write_images(tmp_path, NAMES)
    part_of = {name: stored[min(i // 60, len(stored) - 1) if i < 100 else -1] for i, name in enumerate(NAMES)}
    rows = [(name, name, part) for name, part in part_of.items()]

    def write(stem: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        path = tmp_path / f"{stem}.{ending}"
        if ending == "csv":
            write_table(path, columns, rows)
        else:
            write_lines(path, [dict(zip(columns, row, strict=True)) for row in rows])

    if how == "field":
        write("captions", ["image", "caption", "split"], rows)
    else:
        write("other", ["image", "caption"], [("gone.png", "gone")]) if how == "a file by name" else None
        for part in stored:
            write(f"captions-{part}", ["image", "caption"], [row[:2] for row in rows if row[2] == part])
    found = open_all(tmp_path / f"captions-{stored[1]}.{ending}" if how == "a file by name" else tmp_path)
    of_part = {part: unlabelled({name: [name] for name in NAMES if part_of[name] == part}) for part in stored}
    if len(stored) == 3:
        assert [found[split] for split in SPLITS] == [of_part[part] for part in stored]
    else:
        assert found["test"] == of_part[stored[1]]
        assert found["validation"]
        assert {**found["train"], **found["validation"]} == of_part[stored[0]]


BAD_LINES = [
    ('{"image": "a.png", "caption": "cut off', "not JSON"),
    ("[" * 100_000, "not JSON"),
    ('["a.png", "a"]', "not a JSON object"),
    ('{"caption": "a"}', "no image path under image, filepath"),
    ('{"image": 7, "caption": "a"}', "no image path"),
    ('{"image": " ", "caption": "a"}', "no image path"),
    ('{"image": "a\\ud800.png", "caption": "a"}', "no image path"),
    ('{"image": "a\\u0000.png", "caption": "a"}', "no image path"),
    ('{"image": "b.png", "caption": null}', "a caption is null; text is needed"),
    ('{"image": "b.png", "caption": 3}', "a caption is a number"),
    ('{"image": "b.png", "caption": ["ok", true]}', "a caption is true or false"),
    ('{"image": "b.png", "captions": {"en": "x"}}', "a caption is an object"),
    ('{"image": "b.png", "caption": [["x"]]}', "a caption is a list"),
    ('{"image": "b.png", "caption": "x", "label": [1]}', "label is neither text nor a whole number"),
    ('{"image": "b.png", "caption": " \\u0000\\t"}', "no caption"),
    ('{"image": "b.png", "captions": []}', "no caption"),
    ('{"image": "b.png"}', "no caption"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_a_malformed_line_is_a_bad_sample_with_its_number(line: str, reason: str, tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    entry = {"image": "a.png", "caption": "fine", "split": "train"}
    held_out = {"image": "c.png", "caption": "fine", "split": "test"}
    line = line[:-1] + ', "split": "train"}' if reason == "no caption" else line
    file = write_lines(tmp_path / "captions.jsonl", [entry, "", line, held_out])
    samples = pickle.loads(pickle.dumps(open_captions("folder", tmp_path, "train", min_side=4).samples))
    validation = open_captions("folder", tmp_path, "validation", min_side=4).samples
    ((source, said),) = bad(samples) + [fault for fault in bad(validation) if "no caption" in reason]
    assert source == f"{file}, line 3"
    assert reason in said
    assert dict(good(samples)) | dict(good(validation)) == unlabelled({"a.png": ["fine"]})


def test_empty_and_duplicate_captions_are_dropped(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png", "v.png", "t.png"])
    lines = [{"image": "a.png", "caption": said, "split": "train"} for said in ("", "b  b", "\t", "b b", "c")]
    lines += [{"image": f"{split[0]}.png", "caption": "x", "split": split} for split in ("val", "test")]
    write_lines(tmp_path / "captions.jsonl", lines)
    assert open_all(tmp_path)["train"] == unlabelled({"a.png": ["b b", "c"]})


def test_a_line_that_is_not_utf_8_is_a_bad_sample(tmp_path: Path) -> None:
    write_images(tmp_path, NAMES[:3])
    lines = [
        json.dumps({"image": name, "caption": "caf\u00e9", "split": split}, ensure_ascii=False)
        for name, split in zip(NAMES[:4], ("train", "val", "test", "train"), strict=False)
    ]
    rows = [
        f"{name},caf\u00e9,{split}" for name, split in zip(NAMES[:4], ("train", "val", "test", "train"), strict=True)
    ]
    for file, texts in (("captions.jsonl", lines), ("list.csv", ["image,caption,split", *rows])):
        encoded = [text.encode("latin-1" if text == texts[-1] else "utf-8") for text in texts]
        (tmp_path / file).write_bytes(b"\n".join(encoded))
        samples = open_captions("folder", tmp_path / file, "train", min_side=4).samples
        assert bad(samples) == [(f"{tmp_path / file}, line {len(texts)}", "not UTF-8")]
        assert dict(good(samples)) == unlabelled({NAMES[0]: ["caf\u00e9"]})


def test_a_table_may_name_images_whose_names_are_not_utf_8(tmp_path: Path) -> None:
    names = [f"{split}\udce9.png" for split in ("train", "val", "test")]
    write_images(tmp_path, names)
    rows = [f"{name},caf\u00e9,{name.partition(chr(0xDCE9))[0]}" for name in names]
    text = "\n".join(["image,caption,split", *rows])
    (tmp_path / "captions.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    samples = open_captions("folder", tmp_path, "train", min_side=4).samples
    assert dict(good(samples)) == unlabelled({names[0]: ["caf\u00e9"]})


def test_malformed_rows_of_a_table_are_bad_samples(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    text = 'image,caption,split\na.png,"two\nlines",train\nb.png,too,many,fields\n\nb.png\n,none,train\nc.png,c,test\n'
    (tmp_path / "captions.csv").write_text(text + 'b.png,"never closed,train\nb.png,swallowed,train\n')
    file = tmp_path / "captions.csv"
    samples = [open_captions("folder", tmp_path, split, min_side=4).samples for split in ("train", "validation")]
    assert dict(good(samples[0])) | dict(good(samples[1])) == unlabelled({"a.png": ["two lines"]})
    assert bad(samples[0]) + bad(samples[1]) == [
        (f"{file}, line 4", "4 fields, but the header has 3"),
        (f"{file}, line 6", "1 fields, but the header has 3"),
        (f"{file}, line 7", "no image path under image, filepath, file, path"),
        (f"{file}, line 9", "not a table row: unclosed quote"),
        (f"{file}, line 10", "not a table row: unclosed quote"),
    ]


def test_the_name_of_a_single_file_sets_no_split(tmp_path: Path) -> None:
    write_images(tmp_path, NAMES[:3])
    lines = [{"image": n, "caption": n, "split": split} for n, split in zip(NAMES, SPLITS, strict=False)]
    found = open_all(write_lines(tmp_path / "my-test.jsonl", lines))
    assert [found[split] for split in SPLITS] == [unlabelled({name: [name]}) for name in NAMES[:3]]


def test_every_line_inside_an_unclosed_quote_is_a_bad_sample(tmp_path: Path) -> None:
    write_images(tmp_path, NAMES[:2])
    lines = ["image,caption", *[f"{NAMES[i % 2]},caption {i}" for i in range(20_000)]]
    lines[5000] = f'{NAMES[0]},"open'
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    samples = open_captions("folder", tmp_path, "train", min_side=4).samples
    faults = bad(samples)
    first = 5001
    assert [source for source, _ in faults] == [
        f"{tmp_path / 'captions.csv'}, line {first + i}" for i in range(len(faults))
    ]
    assert {reason for _, reason in faults} == {"not a table row: field larger than field limit (131072)"}
    valid = sum(len(captions) for split in open_all(tmp_path).values() for captions, _ in split.values())
    assert valid + len(faults) == 20_000
    assert len(faults) < 8_000


def test_missing_and_broken_images_are_bad_samples(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png", "broken.png"])
    (tmp_path / "broken.png").write_bytes(b"nothing")
    names = ["a.png", "gone.png", "broken.png", "x" * 300 + ".png", "."]
    lines = [{"image": name, "caption": "x", "split": "train"} for name in names]
    rest = [{"image": f"{split}.png", "caption": "x", "split": split} for split in ("val", "test")]
    write_images(tmp_path, ["val.png", "test.png"])
    write_lines(tmp_path / "captions.jsonl", lines + rest)
    samples = open_captions("folder", tmp_path, "train", min_side=4).samples
    reasons = ["No such file", "not an image", "name too long", "s a directory"]
    for (source, reason), name, part in zip(bad(samples), names[1:], reasons, strict=True):
        assert source == str(tmp_path / name)
        assert part in reason


def test_all_file_names_and_absolute_paths_are_read(tmp_path: Path) -> None:
    names = ["snow \u2603 \u00fcn\u00ef.png", "u\u0308nfc.png", "two  spaces .png", "line\nbreak.png", 'quote".png']
    names += [os.fsdecode(b"not-utf8-\xff.png")]
    write_images(tmp_path, names)
    write_images(tmp_path / "elsewhere", ["far.png"])
    (tmp_path / "lists").mkdir()
    paths = [f"../{name}" for name in names] + [str(tmp_path / "elsewhere" / "far.png")]
    write_lines(tmp_path / "lists" / "captions.jsonl", [{"path": path, "caption": "x"} for path in paths])
    found = open_all(tmp_path / "lists")
    assert sum(map(len, found.values())) == len({colour for split in found.values() for colour in split}) == 7


# Labels


def labelled(root: Path, labels: Iterable[tuple[str, object]]) -> Path:
    rows = [
        {"image": f"{i}.png", "caption": "x", "split": split, "label": label} for i, (split, label) in enumerate(labels)
    ]
    write_images(root, [str(row["image"]) for row in rows])
    return write_lines(root / "captions.jsonl", rows)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(["dog", "cat", None, "dog"], ("cat", "dog")), ([10, 9, None, "10"], ("9", "10")), ([None, ""], ())],
)
def test_classes_are_the_labels_of_the_training_set(
    labels: list[object], classes: tuple[str, ...], tmp_path: Path
) -> None:
    labelled(tmp_path, [(split, label) for split in SPLITS for label in labels])
    for split in SPLITS:
        source = open_captions("folder", tmp_path, split, min_side=4)
        assert source.classes == classes
        said = [label for _, (_, label) in good(source.samples)]
        assert said == [classes.index(str(label)) if label not in (None, "") else None for label in labels]


def test_a_label_unknown_in_training_is_an_error_and_an_image_with_two_labels_is_a_bad_sample(tmp_path: Path) -> None:
    file = labelled(tmp_path, [("train", "cat"), ("val", "cat"), ("test", "cow")])
    with pytest.raises(ValueError, match=r"captions\.jsonl, line 3: label 'cow'"):
        open_captions("folder", tmp_path, "test", min_side=4)
    more = {"image": "0.png", "caption": "x", "split": "train", "label": "dog"}
    write_lines(file, [*file.read_text().splitlines()[:2], json.dumps(more), json.dumps({**more, "image": "2.png"})])
    samples = [open_captions("folder", tmp_path, split, min_side=4).samples for split in ("train", "validation")]
    assert bad(samples[0]) + bad(samples[1]) == [(f"{file}, line 1", "0.png has different labels")]


# Errors

ROW = {"image": "000.png", "caption": "x"}


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({}, FileNotFoundError, r"no captions\.jsonl, captions\.csv or captions\.tsv in"),
        ({"captions.jsonl": ""}, ValueError, r"no images .* in .*captions\.jsonl"),
        (
            {"captions.jsonl": "image,caption\na.png,x"},
            ValueError,
            r"captions\.jsonl, line 1: not JSON.*first 100 lines",
        ),
        ({"captions.jsonl": "{}\n" * 100 + json.dumps(ROW)}, ValueError, "line 1: no image path under image"),
        ({"captions.jsonl": b"\xff\xfe{\0"}, ValueError, "line 1: not UTF-8"),
        ({"captions.jsonl": json.dumps({**ROW, "caption": ""})}, ValueError, "no image has a caption in"),
        ({"captions.jsonl": json.dumps({**ROW, "image": "no.png"})}, ValueError, r"none of the 1 images.*/no\.png"),
        (
            {"captions.jsonl": json.dumps({**ROW, "split": "extra"})},
            ValueError,
            "line 1: unknown split 'extra'; allowed are tr",
        ),
        ({"captions.jsonl": json.dumps({**ROW, "split": [1]})}, ValueError, r"line 1: unknown split \[1\]"),
        ({"captions.jsonl": json.dumps({**ROW, "split": "val"})}, ValueError, "no image is in the training split"),
        (
            {"captions.jsonl": "\n".join(json.dumps({**ROW, "split": split}) for split in ("train", "test"))},
            ValueError,
            r"line 2: 000\.png is in test .* train",
        ),
        (
            {"captions.jsonl": "\n".join(map(json.dumps, ({**ROW, "split": "train"}, {**ROW, "image": "001.png"})))},
            ValueError,
            "line 2: no split is given",
        ),
        (
            {"captions-train.jsonl": json.dumps(ROW), "captions-val.jsonl": json.dumps(ROW)},
            ValueError,
            "line 1: 000.*val",
        ),
        ({"captions.csv": "caption,url\nx,y"}, ValueError, r"captions\.csv, line 1: no image column .*: caption, url"),
        ({"captions.tsv": "image,caption\na,b"}, ValueError, r"line 1: no image column"),
        ({"captions.csv": "image,id\nx,y"}, ValueError, r"line 1: no caption column \(caption, text, title\)"),
        ({"captions.csv": ""}, ValueError, r"line 1: no image column"),
        ({"captions.csv": b"\xff\xfei\0m\0"}, ValueError, "line 1: not UTF-8"),
        (
            {"captions.csv": "image,caption\na\nb\n"},
            ValueError,
            "line 2: 1 fields, but the header has 2; none of the first",
        ),
        (
            {"captions.csv": "x", "captions.jsonl": "x"},
            ValueError,
            r"holds captions\.csv, captions\.jsonl; one is allowed",
        ),
        ({"captions-val.csv": "x"}, ValueError, "none is named train"),
    ],
)
def test_an_unusable_list_is_an_error_of_one_line(
    files: Mapping[str, str | bytes], error: type[Exception], message: str, tmp_path: Path
) -> None:
    write_images(tmp_path, ["000.png", "001.png"])
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=message) as caught:
        open_captions("folder", tmp_path, "train", min_side=4)
    assert "\n" not in str(caught.value)


def test_a_wrong_source_or_root_is_an_error(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png"])
    with pytest.raises(ValueError, match=r"'csv'.*folder, webdataset, coco"):
        open_captions("csv", tmp_path, "train", min_side=4)
    with pytest.raises(ValueError, match=r"1\.png .*\.jsonl, \.csv, \.tsv"):
        open_captions("folder", tmp_path / "1.png", "train", min_side=4)
    with pytest.raises(ValueError, match="min_side is 0"):
        open_captions("folder", tmp_path, "train", min_side=0)
    for source in ("folder", "webdataset", "coco"):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            open_captions(source, tmp_path / "none", "train", min_side=4)


def test_a_long_list_takes_little_memory(tmp_path: Path) -> None:
    write_images(tmp_path, NAMES[:1])
    lines = [{"image": NAMES[0] if i == 0 else f"{i:07d}.png", "caption": f"caption {i:07d}"} for i in range(20_000)]
    write_lines(tmp_path / "captions.jsonl", lines)
    tracemalloc.start()
    samples = open_captions("folder", tmp_path, "train", min_side=4).samples
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(samples) > 15_000
    assert kept / len(lines) < 150  # bytes, of which 27 are text


# Tar shards


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # that package leaves files open
def test_shards_written_by_the_webdataset_package_are_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    wanted: dict[str, Contents] = {}
    for part in ("train", "val", "test"):
        wanted[part] = {}
        for shard in range(2):
            with webdataset.TarWriter(str(tmp_path / f"{part}-{shard}.tar")) as writer:
                for key in (f"{part}{shard}{i}" for i in range(5)):
                    fields: dict[str, Any] = {"caption": f" {key} \u00fc", "captions": ["", f"more of {key}"], "cls": 1}
                    sample = {"__key__": key, "png": png(key), "json": fields, "txt": f"{key}  \u00fc\n"}
                    if key.endswith("3"):
                        del sample["json"]
                    writer.write(sample)
                    has_more = not key.endswith("3")
                    said = (f"{key} \u00fc", f"more of {key}") if has_more else (f"{key} \u00fc",)
                    wanted[part][colour_of(key)] = said, 0 if has_more else None
    found = open_all(tmp_path, "webdataset")
    assert [found[split] for split in SPLITS] == [wanted[part] for part in ("train", "val", "test")]
    samples = open_captions("webdataset", tmp_path, "train", min_side=4).samples
    assert good(pickle.loads(pickle.dumps(samples))) == good(samples)
    assert open_captions("webdataset", tmp_path, "train", min_side=4).classes == ("1",)


def test_carved_splits_of_unlabelled_shards_are_held_out_and_damage_is_one_bad_sample(tmp_path: Path) -> None:
    members = [m for i in range(100) for m in ((f"{i:03d}.png", png(f"{i}")), (f"{i:03d}.txt", f"no {i}".encode()))]
    path = write_tar(tmp_path / "0.tar", members)
    path.write_bytes(path.read_bytes()[: 90 * 4 * 512 + 700])
    found = open_all(tmp_path, "webdataset")
    assert len({colour for said in found.values() for colour in said}) == sum(map(len, found.values()))
    assert {**found["train"], **found["validation"], **found["test"]} == unlabelled(
        {f"{i}": [f"no {i}"] for i in range(90)}
    )
    faults = [
        fault for split in SPLITS for fault in bad(open_captions("webdataset", tmp_path, split, min_side=4).samples)
    ]
    assert [source for source, _ in faults] == [str(path)]
    assert "damaged tar file" in faults[0][1]


@pytest.mark.parametrize(
    ("companions", "reason"),
    [
        ([], "no caption"),
        ([("txt", b" \n")], "no caption"),
        ([("json", b'{"width": 3}')], "no caption"),
        ([("json", b"[1]")], "no caption"),
        ([("json", b'{"caption": 3}')], "a caption is a number"),
        ([("txt", b"fine"), ("json", b'{"caption": null}')], "a caption is null"),
        ([("txt", b"fine"), ("json", b'{"capt')], r"unreadable 1\.json"),
        ([("txt", b"caf\xe9")], "not UTF-8"),
    ],
)
def test_an_image_in_a_shard_without_a_valid_caption_is_a_bad_sample(
    companions: list[tuple[str, bytes]], reason: str, tmp_path: Path
) -> None:
    members = [
        ("0.png", png("0")),
        ("0.txt", b"fine"),
        ("1.png", png("1")),
        *[(f"1.{end}", data) for end, data in companions],
    ]
    for part in ("train", "val", "test"):
        write_tar(tmp_path / f"{part}.tar", members)
    samples = open_captions("webdataset", tmp_path, "train", min_side=4).samples
    assert dict(good(samples)) == unlabelled({"0": ["fine"]})
    with pytest.raises(BadSampleError, match=reason) as caught:
        samples[1]
    assert caught.value.source == f"{tmp_path / 'train.tar'}/1.png"


def test_shards_without_any_caption_are_an_error(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("0.png", png("0")), ("0.cls", b"1")])
    with pytest.raises(ValueError, match=r"no captions in .*0\.tar; .*\.txt or \.json"):
        open_captions("webdataset", tmp_path, "train", min_side=4)


# COCO


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def coco(names: Sequence[str]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Annotations with two captions per image, not adjacent, and the captions by image."""
    captions = {name: [f"{name} one", f"{name} two"] for name in names}
    images = [{"id": 10 * place, "file_name": name} for place, name in enumerate(names)]
    notes = [{"image_id": 10 * i, "caption": captions[name][k]} for k in (0, 1) for i, name in enumerate(names)]
    return {"images": images, "annotations": notes}, captions


@pytest.mark.parametrize("folder", ["train{}", "images/train{}", "images", ""])
@pytest.mark.parametrize("by_file", [False, True])
def test_the_files_of_coco_are_read_with_images_in_all_known_folders(
    folder: str, by_file: bool, tmp_path: Path
) -> None:
    captions = {}
    for part in ("train", "val"):
        content, said = coco([f"{part}{i}.png" for i in range(30)])
        where = folder.format("2017").replace("train", part)
        for name in said:
            (tmp_path / where).mkdir(parents=True, exist_ok=True)
            (tmp_path / where / name).write_bytes(png(name))
        captions[part] = unlabelled(said)
        write_json(tmp_path / "annotations" / f"captions_{part}2017.json", content)
        write_json(tmp_path / "annotations" / f"instances_{part}2017.json", {})
    found = open_all(tmp_path / "annotations" / "captions_val2017.json" if by_file else tmp_path, "coco")
    assert found["test"] == captions["val"]
    assert found["validation"]
    assert {**found["train"], **found["validation"]} == captions["train"]
    assert len(found["train"]) + len(found["validation"]) == 30
    assert list(good(open_captions("coco", tmp_path, "test", min_side=4).samples)) == list(captions["val"].items())


@pytest.mark.parametrize("folder", ["", "Flicker8k_Dataset", "val2014"])
def test_karpathys_files_are_read_with_their_splits(folder: str, tmp_path: Path) -> None:
    parts = dict(zip((f"{i}.png" for i in range(12)), ("train", "restval", "val", "test") * 3, strict=True))
    for name in parts:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(png(name))
    images = [
        {"filename": name, "split": part, "sentences": [{"raw": f"{name} {k} "} for k in (1, 2)], "imgid": 0}
        | ({"filepath": folder} if folder == "val2014" else {})
        for name, part in parts.items()
    ]
    file = write_json(tmp_path / "dataset_any.json", {"images": images, "dataset": "any"})
    for root in (tmp_path, file):
        found = open_all(root, "coco")
        for split, held in zip(SPLITS, ({"train", "restval"}, {"val"}, {"test"}), strict=True):
            names = [name for name, part in parts.items() if part in held]
            assert found[split] == unlabelled({name: [f"{name} 1", f"{name} 2"] for name in names})


def test_malformed_entries_of_coco_are_bad_samples(tmp_path: Path) -> None:
    content, said = coco([f"{i}.png" for i in range(4)])
    write_images(tmp_path, said)
    content["images"] += [{"id": 7}, {"file_name": "x.png"}, {"id": 0, "file_name": "x.png"}, 3]
    content["images"] += [{"id": 99, "file_name": "3b.png"}]
    content["annotations"] += [
        {"image_id": 12345, "caption": "x"},
        {"image_id": 0, "caption": None},
        "x",
        {"image_id": []},
    ]
    file = write_json(tmp_path / "captions_train2014.json", content)
    samples = [open_captions("coco", tmp_path, split, min_side=4).samples for split in SPLITS]
    assert {colour: what for each in samples for colour, what in good(each)} == unlabelled(said)
    faults = dict(fault for each in samples for fault in bad(each))
    locations = [*[f"images[{i}]" for i in (4, 5, 6, 7, 8)], *[f"annotations[{i}]" for i in (8, 9, 10, 11)]]
    assert faults.keys() == {f"{file}, {location}" for location in locations}
    assert faults[f"{file}, images[8]"] == "no caption"
    assert faults[f"{file}, annotations[8]"] == "image_id 12345 is not among the images"
    assert faults[f"{file}, annotations[9]"] == "a caption is null; text is needed"

    entries = [{"filename": "0.png", "split": "train", "sentences": [{"raw": "x"}]}, {"split": "train"}, 3]
    entries += [
        {"filename": "1.png", "split": "train", "sentences": sentences} for sentences in (None, [{}], [{"raw": 1}])
    ]
    file = write_json(tmp_path / "dataset.json", {"images": entries})
    samples = [open_captions("coco", file, split, min_side=4).samples for split in ("train", "validation")]
    reasons = {source: reason for each in samples for source, reason in bad(each)}
    assert len(reasons) == 5
    assert reasons[f"{file}, images[3]"] == "no caption"
    assert reasons[f"{file}, images[4]"] == "a sentence without `raw`"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no annotations/captions_train\*\.json and no dataset\*\.json in"),
        ({"dataset.json": b'{"images": [\n1,\n2,,]}'}, r"dataset\.json, line 3: not JSON: Expecting value"),
        ({"dataset.json": b'{"a":\n\n"caf\xe9"}'}, r"dataset\.json, line 3: not UTF-8"),
        ({"dataset.json": b"[" * 200_000}, "too deeply nested"),
        ({"dataset.json": b"[]"}, r"dataset\.json has no list of `images`"),
        ({"dataset.json": b'{"images": []}'}, "no images .* in"),
        (
            {"dataset.json": b'{"images": [{"filename": "a", "split": "x"}]}'},
            r"dataset\.json, images\[0\]: unknown split 'x'",
        ),
        ({"dataset_a.json": b"", "dataset_b.json": b""}, "dataset_a.json, dataset_b.json; one data set"),
        ({"captions_train2014.json": b"", "captions_train2017.json": b""}, "one data set is allowed"),
    ],
)
def test_an_unusable_file_of_coco_is_an_error(files: Mapping[str, bytes], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_captions("coco", tmp_path, "train", min_side=4)


# Real data


@pytest.mark.real_data
@pytest.mark.skipif(not REAL_DATA.exists(), reason="the real captions are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "counts", "classes"), [("emoji", (1214, 0, 215), 9), ("flickr8k_mini", (800, 100, 100), 0)]
)
def test_all_real_captions_are_read(name: str, counts: tuple[int, ...], classes: int, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (REAL_DATA / name / "captions.jsonl").read_text().splitlines()]
    sources = [open_captions("folder", REAL_DATA / name, split, min_side=64) for split in SPLITS]
    lengths = [len(source.samples) for source in sources]
    assert (sum(lengths[:2]), lengths[2]) == (sum(counts[:2]), counts[2])
    assert {len(source.classes) for source in sources} == {classes}
    read = [source.samples[index] for source in sources for index in range(len(source.samples))]
    assert all(sample.inputs.image.shape[0] == 3 for sample in read)
    assert sum(len(sample.inputs.captions) for sample in read) == len(
        {(line["image"], clean_caption(line["caption"])) for line in lines}
    )
