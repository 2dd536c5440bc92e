"""Tar shards: which members are one sample, labels, what is passed over, and the reason of everything unusable."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from jepa.data.summary import split_line
from jepa.modality import BadSampleError, Sample, Split
from modalities.storage.folders import FileKind
from modalities.storage.shards import ShardSamples, open_shards

KIND = FileKind("images", (".jpg", ".png"))
CAPTIONED = FileKind("images", (".jpg", ".png"), companions=(".txt", ".json"))
Member = tuple[str, bytes | str]


def write_tar(path: Path, members: Iterable[Member], **options: int) -> Path:
    """A tar file; a str is the text of a file."""
    with tarfile.open(path, "w", **options) as archive:  # type: ignore[call-overload]
        for name, data in members:
            content = data.encode() if isinstance(data, str) else data
            (member := tarfile.TarInfo(name)).size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def decode(data: bytes, name: str) -> bytes:
    """Inputs are the contents of the member."""
    return data


def opened(path: Path, kind: FileKind = KIND, split: str = "train") -> tuple[ShardSamples, tuple[str, ...]]:
    """All samples of the training set: unlabelled and captioned sets are carved otherwise."""
    return open_shards(path, split, kind, decode)  # type: ignore[arg-type]


def shard_set(folder: Path, members: Iterable[Member]) -> Path:
    """A folder whose three splits hold the same members, so that nothing is carved."""
    for split in ("train", "val", "test"):
        write_tar(folder / f"{split}.tar", members := list(members))
    return folder


def read(samples: ShardSamples) -> list[tuple[str, object]]:
    """Contents and class number of each sample; of a bad one its reason."""
    found: list[tuple[str, object]] = []
    for index in range(len(samples)):
        try:
            sample: Sample = samples[index]
            found.append((sample.inputs.decode(), sample.labels.get("class")))
        except BadSampleError as error:
            found.append((error.source.rpartition("/")[2], error.reason))
    return found


@pytest.mark.parametrize(
    ("members", "found", "passed_over"),
    [
        # The last known ending counts.
        ([("a.2021.01.jpg", "x"), ("a.2021.01.cls", "1"), ("a.2021.02.jpg", "y"), ("a.2021.02.cls", "0")], {"x": 1, "y": 0}, {}),  # noqa: E501
        ([("i.v2.png", "x"), ("i.v2.cls", "1"), ("i.png", "y"), ("i.cls", "0")], {"x": 1, "y": 0}, {}),
        ([("d.1/i.png", "x"), ("d.1/i.cls", "1"), ("d.2/i.png", "y"), ("d.2/i.cls", "0")], {"x": 1, "y": 0}, {}),
        ([("./i.JPG", "x"), ("i.CLS", "0")], {"x": 0}, {}),
        # Fields before the ending, as the webdataset package writes them.
        ([("i.image.jpg", "x"), ("i.cls", "1"), ("j.cls", "0"), ("j.image.jpg", "y")], {"x": 1, "y": 0}, {}),
        ([("a.1.image.jpg", "x"), ("a.1.cls", "1"), ("a.2.image.jpg", "y"), ("a.2.cls", "0")], {"x": 1, "y": 0}, {}),
        ([("i.seg.png", "m"), ("i.jpg", "x"), ("i.cls", "0"), ("j.jpg", "y"), ("j.seg.PNG", "m")], {"x": 0, "y": None}, {".seg.png": 2}),  # noqa: E501
        ([("i.jpg", "x"), ("i.cls", "0"), ("i.meta.json", "{}")], {"x": 0}, {".meta.json": 1}),
        ([("i.image.jpg", "x"), ("i.json", "{}"), ("i.mask.jpg", "m")], {"x": None, "m": None}, {".json": 1}),
        ([("i.jpg", "x"), ("i.2021.jpg", "y")], {"x": None, "y": None}, {}),
        # Everything else is counted.
        ([("i.jpg", "x"), ("j.heic", "-"), ("k.heic", "-"), ("README", "-"), ("lone.cls", "3"), (".hidden.jpg", "-")], {"x": None}, {".heic": 2, "": 1, ".cls": 1}),  # noqa: E501
    ],
)  # fmt: skip
def test_the_last_known_ending_counts_and_fields_before_it_belong_to_the_sample(
    members: list[Member], found: dict[str, int | None], passed_over: dict[str, int], tmp_path: Path
) -> None:
    samples, _ = opened(shard_set(tmp_path, members))
    assert dict(read(samples)) == found
    assert dict(samples.found.summary.passed_over) == {
        each or "without ending": count for each, count in passed_over.items()
    }


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("i.jpg", "x"), ("i.cls", "0"), ("i.jpg", "y"), ("i.cls", "1")], "key 'i' has 2 inputs: i.jpg, i.jpg"),
        ([("i.jpg", "x"), ("i.cls", "0"), ("k.jpg", "k"), ("i.jpg", "y"), ("i.cls", "0")], "key 'i' has 2 inputs: i.jpg, i.jpg"),  # noqa: E501
        ([("d/i.jpg", "x"), ("d/i.png", "y"), ("d/i.cls", "0")], "key 'd/i' has 2 inputs: d/i.jpg, d/i.png"),
        ([("i.jpg", "x"), ("./i.jpg", "y")], "key 'i' has 2 inputs: i.jpg, ./i.jpg"),
        ([("i.jpg", "x"), ("i.cls", "0"), ("i.cls", "1")], "key 'i' has more than one .cls"),
        ([("i.jpg", "x"), ("i.json", '{"label": 1}'), ("i.cls", "0")], "labels differ: 1 in i.json, 0 in i.cls"),
        ([("i.a.jpg", "x"), ("i.b.jpg", "y"), ("i.cls", "0")], "key 'i' has 2 inputs: i.a.jpg, i.b.jpg"),
        ([("i.jpg", "x"), ("i.cls", "\n")], "unreadable label in i.cls: it is empty"),
        ([("i.jpg", "x"), ("i.cls", b"\xff\xfe1")], "unreadable label in i.cls: not UTF-8"),
        ([("i.jpg", "x"), ("i.cls", "1.5")], "unreadable label in i.cls: the label is 1.5; it must be a whole number or a name"),  # noqa: E501
        ([("i.jpg", "x"), ("i.json", '{"label": 1')], "unreadable i.json: not JSON: Expecting ',' delimiter: line 1 column 12 (char 11)"),  # noqa: E501
        ([("i.jpg", "x"), ("i.json", b'{"a": "\xe9"}')], "unreadable i.json: not UTF-8"),
        ([("i.jpg", "x"), ("i.json", "[" * 100_000)], "unreadable i.json: nested too deeply"),
        ([("i.jpg", "x"), ("i.json", '{"label": [1, 2]}')], "unreadable i.json: the label is a list; it must be a whole number or a name"),  # noqa: E501
        ([("i.jpg", "x"), ("i.json", '{"label": true}')], "unreadable i.json: the label is true or false; it must be a whole number or a name"),  # noqa: E501
        ([("i.jpg", "x"), ("i.json", '{"label": 2.5}')], "unreadable i.json: the label is 2.5; it must be a whole number or a name"),  # noqa: E501
    ],
)  # fmt: skip
def test_what_cannot_be_paired_or_read_for_certain_is_a_bad_sample(
    members: list[Member], reason: str, tmp_path: Path
) -> None:
    good = [("good.jpg", "good"), ("good.cls", "0"), ("fair.jpg", "fair"), ("fair.json", '{"cls": 1.0}')]
    samples, classes = opened(shard_set(tmp_path, members + good))
    found = read(samples)
    reasons = [said for _, said in found if isinstance(said, str)]
    assert reasons
    assert set(reasons) == {reason}
    assert [pair for pair in found if pair[1] != reason and pair[0] != "k"] == [("good", 0), ("fair", 1)]
    assert classes == ("0", "1")
    (tmp_path / "all").mkdir()
    with pytest.raises(ValueError, match=r"no usable images in .*the first of . bad samples") as caught:
        opened(shard_set(tmp_path / "all", [member for member in members if member[0] != "k.jpg"]))
    assert str(caught.value).endswith(reason)


def test_a_number_and_a_name_of_one_sample_do_not_contradict_each_other(tmp_path: Path) -> None:
    members: list[Member] = [
        ("i.jpg", "x"),
        ("i.json", '{"label": "cat"}'),
        ("i.cls", "07"),
        ("j.jpg", "y"),
        ("j.cls", "3"),
    ]
    samples, classes = opened(shard_set(tmp_path, members))
    assert (read(samples), classes) == ([("x", 1), ("y", 0)], ("3", "07"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_SPARSE])
@pytest.mark.parametrize("name", ["i.jpg", "i.cls"])
def test_links_and_sparse_files_are_bad_samples(kind: bytes, name: str, tmp_path: Path) -> None:
    shard_set(tmp_path, [])
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        for each in ("0.jpg", "i.jpg", "i.cls"):
            member = tarfile.TarInfo(each)
            member.size = 1
            if each == name:
                member.type, member.linkname, member.size = kind, "0.jpg", 0
            archive.addfile(member, io.BytesIO(b"0"))
    good, (source, reason) = read(opened(tmp_path)[0])
    assert good == ("0", None)
    assert source == "i.jpg"
    assert str(reason).startswith(f"{name} is ")
    assert "--sparse" in str(reason) if kind == tarfile.GNUTYPE_SPARSE else "a link to 0.jpg" in str(reason)


@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_extended_headers_are_read(layout: int, tmp_path: Path) -> None:
    name = f"{'d' * 120}/{'n' * 150}\u00fc"
    path = write_tar(tmp_path / "a.tar", [(f"{name}.jpg", "x"), (f"{name}.cls", "5")], format=layout)
    samples, classes = opened(path)
    assert classes == ("5",)
    assert samples.found.summary.passed_over == {}
    assert sum(len(opened(path, split=split)[0]) for split in ("train", "validation", "test")) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (gzip.compress(bytes(2000), mtime=0), "compressed by gzip; .*decompress it"),
        (b"\x28\xb5\x2f\xfd" + bytes(2000), "compressed by zstd"),
        (
            b"<!DOCTYPE html>\n<title>404 Not Found</title>",
            "not a tar file; it begins with '<!DOCTYPE html> <title>404",
        ),
        (b"version https://git-lfs.github.com/spec/v1" + b"\n" * 600, "not a tar file; it begins with 'version https"),
        (b"", "an empty file"),
        (bytes(range(128, 228)) * 10, "not a tar file$"),
        (bytes(10_240), r"no images in .*; found: nothing"),
    ],
    ids=["gzip", "zstd", "page", "pointer", "empty", "binary", "zeros"],
)
def test_a_file_that_is_not_a_tar_file_says_so(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        opened(tmp_path)
    write_tar(tmp_path / "b.tar", [(f"{i}.jpg", "x") for i in range(3)])
    bad = [said for _, said in read(opened(tmp_path)[0]) if said is not None]
    assert len(bad) == (0 if "no images" in reason else 1)


def test_a_second_archive_behind_the_first_is_a_bad_sample(tmp_path: Path) -> None:
    shard_set(tmp_path, [("0.jpg", "0"), ("1.jpg", "1")])
    (tmp_path / "train.tar").write_bytes((tmp_path / "train.tar").read_bytes() * 2)
    with pytest.raises(BadSampleError, match=r"more data after its end mark at byte 2048; .*give each a file"):
        opened(tmp_path)[0][1]


def test_a_shard_cut_off_behind_a_late_label_drops_that_sample(tmp_path: Path) -> None:
    members = [member for i in range(4) for member in ((f"{i}.image.jpg", f"{i}"), (f"{i}.cls", f"{i % 2}"))]
    path = write_tar(shard_set(tmp_path, members) / "train.tar", members)
    path.write_bytes(path.read_bytes()[: 4 * 4 * 512])
    assert read(opened(tmp_path)[0])[:3] == [("0", 0), ("1", 1), ("2", 0)]
    assert len(opened(tmp_path)[0]) == 4


def test_captions_follow_the_same_rules(tmp_path: Path) -> None:
    members: list[Member] = [
        *[("a.b.jpg", "x"), ("a.b.txt", "said")],
        *[("i.image.jpg", "y"), ("i.txt", "more"), ("i.json", json.dumps({"label": "cat"}))],
        *[("t.jpg", "t"), ("t.txt", "one"), ("t.txt", "two")],
        *[("v.0.jpg", "0"), ("v.1.jpg", "1"), ("v.txt", "whose?")],
    ]
    samples, classes = opened(shard_set(tmp_path, members), CAPTIONED)
    assert read(samples) == [
        ("x", None),
        ("y", 0),
        ("t.jpg", "key 't' has more than one .txt"),
        ("v.0.jpg", "key 'v' has 2 inputs: v.0.jpg, v.1.jpg"),
        ("v.1.jpg", "key 'v' has 2 inputs: v.0.jpg, v.1.jpg"),
    ]
    assert [samples.companions(index)[0] for index in (0, 1)] == [b"said", b"more"]
    assert classes == ("cat",)


def test_ids_as_labels_make_one_class_per_id_that_occurs(tmp_path: Path) -> None:
    ids = (-7, 30_000, 4_000_000_000, 2**70)
    members = [member for i in range(8) for member in ((f"{i}.jpg", f"{i}"), (f"{i}.cls", f"{ids[i % 4]}"))]
    samples, classes = opened(shard_set(tmp_path, members))
    assert classes == tuple(map(str, ids))
    assert [label for _, label in read(samples)] == [0, 1, 2, 3] * 2
    write_tar(tmp_path / "test.tar", [("0.jpg", "0"), ("0.cls", "5")])
    with pytest.raises(ValueError, match=r"test\.tar: label '5' is not in the training set"):
        opened(tmp_path, split="test")


def test_shards_say_what_they_hold_and_pass_over_and_may_lie_some_levels_lower(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "shards"
    for number in range(2):
        keys = [f"{number}{i}" for i in range(30)]
        members = [(f"{key}{ending}", text) for key in keys for ending, text in ((".jpg", "x"), (".cls", key[-1]))]
        (folder / "Training").mkdir(parents=True, exist_ok=True)
        write_tar(folder / "Training" / f"{number}.tar", [*members, ("notes", "x"), ("a.heic", "x"), ("b.heic", "x")])
    (folder / "Training" / "sizes.json").touch()
    (folder / "Testing").mkdir()
    write_tar(folder / "Testing" / "0.tar", [("1.jpg", "x"), ("1.cls", "1"), ("2.jpg", "x"), ("2.cls", " ")])
    train, test = (opened(tmp_path, split=split)[0] for split in ("train", "test"))
    held_out = len(opened(tmp_path, split="validation")[0])
    assert line("train", train) == (
        f"train: {60 - held_out} images in 10 classes (0, 1, 2, ...) in 2 tar files below {tmp_path}; "
        f"held out from it: {held_out} for validation; passed over: 4 .heic, 2 without ending, 1 .json"
    )
    path = folder / "Testing" / "0.tar"
    assert line("test", test) == f"test: 2 images in 10 classes (0, 1, 2, ...) in {path}"
    assert test.summary is not None
    reason = f"{path}/2.jpg: unreadable label in 2.cls: it is empty"
    assert test.summary.notes == (f"unusable samples: 1; the first: {reason}",)
    assert train.digest() not in (test.digest(), opened(path)[0].digest())


def test_labels_may_be_ignored_and_then_training_keeps_all_samples(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [part for i in range(30) for part in ((f"{i}.jpg", "x"), (f"{i}.cls", "1"))])
    samples, classes = open_shards(tmp_path, "train", KIND, decode, labels=False)
    assert (classes, len(samples), samples[0].labels) == ((), 30, {})
    assert line("train", samples).endswith("a tenth of them each is also used for validation and test")


def line(split: Split, samples: ShardSamples) -> str:
    assert samples.summary is not None
    return split_line(split, len(samples), samples.summary)
