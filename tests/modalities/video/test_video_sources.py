"""Sources of videos: every layout with its labels and splits, small videos decoded whole, and errors."""

import pickle
import tarfile
from collections.abc import Iterable, Mapping
from functools import cache
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator
from torch.utils._pytree import tree_leaves

from jepa.data import SampleCache
from jepa.data.summary import summary_of
from jepa.modality import BadSampleError, Samples, Split
from modalities.video.decode.stored import VideoInfo
from modalities.video.decode.video import EncodedVideo
from modalities.video.frame_names import in_order
from modalities.video.frames import FrameFolder
from modalities.video.sources import ReadOptions, Source, open_source
from modalities.video.views import random_frames
from modalities.video.whole import DecodedVideo

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
PYAV = ReadOptions(decoder="pyav")
LAZY = ReadOptions(decoder="pyav", whole_mb=0)


@cache
def video(grey: int, frames: int = 3) -> bytes:
    """Lossless grey frames of 64 x 48."""
    stream_of_bytes = BytesIO()
    with av.open(stream_of_bytes, "w", format="avi") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "gray"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64), grey, np.uint8), format="gray")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return stream_of_bytes.getvalue()


def write_videos(root: Path, files: Iterable[str]) -> Path:
    """Write a video at each path; its grey value is the number of the path."""
    for number, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(video(number))
    return root


def contents(samples: Samples) -> list[tuple[int, object]]:
    """Grey value and label of every video."""
    found = [samples[index] for index in range(len(samples))]
    return [(int(sample.inputs.read([1], None).max()), sample.labels.get("class")) for sample in found]


def open_all(root: Path, source: Source, options: ReadOptions = LAZY) -> Mapping[Split, list[tuple[int, object]]]:
    return {split: contents(open_source(source, root, split, options).samples) for split in SPLITS}


def test_class_folders_of_videos_are_read_like_those_of_images(tmp_path: Path) -> None:
    files = [f"{split}/{name}/{i}.mp4" for split in ("train", "val", "test") for name in ("jump", "walk") for i in "ab"]
    write_videos(tmp_path, [*files, "train/.hidden/c.mp4"])
    (tmp_path / "train" / "jump" / "notes.txt").write_text("not a video")
    (tmp_path / "train" / "jump" / "cover.jpg").write_bytes(b"not a video either")
    found = open_all(tmp_path, "folder")
    assert found["train"] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert found["validation"] == [(4, 0), (5, 0), (6, 1), (7, 1)]
    assert found["test"] == [(8, 0), (9, 0), (10, 1), (11, 1)]
    assert open_source("folder", tmp_path, "test", LAZY).classes == ("jump", "walk")


def test_a_flat_folder_is_unlabelled(tmp_path: Path) -> None:
    write_videos(tmp_path, ["b.MP4", "a.mkv", "deep/c.webm"])
    source = open_source("folder", tmp_path, "train", LAZY)
    assert source.classes == ()
    assert sorted(contents(source.samples)) == [(0, None), (1, None), (2, None)]


def test_folders_of_frames_are_videos_in_natural_order(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        for label, name in (("jump", "one"), ("jump", "two"), ("walk", "three")):
            (folder := tmp_path / part / label / name).mkdir(parents=True)
            for number in (1, 2, 10, 9):
                Image.new("L", (8, 6), 20 * number).save(folder / f"frame{number}.png")
            (folder / "notes.txt").write_text("not a frame")
    source = open_source("frames", tmp_path, "train", ReadOptions(whole_mb=0, stored_fps=12.5))
    assert source.classes == ("jump", "walk")
    assert [source.samples[i].labels["class"] for i in range(3)] == [0, 0, 1]
    stored = pickle.loads(pickle.dumps(source.samples[0].inputs))
    assert stored.info == VideoInfo(4, 12.5, 6, 8)
    assert stored.read([0, 1, 2, 3, 0], 3)[:, 0, 0, 0].tolist() == [20, 40, 180, 200, 20]
    assert stored.read([0], 3).shape == (1, 3, 3, 4)
    (tmp_path / "train" / "jump" / "one" / "frame2.png").write_bytes(b"broken")
    with pytest.raises(BadSampleError, match=r"frame2\.png.*not an image"):
        stored.read([1], None)
    Image.new("L", (9, 6)).save(tmp_path / "train" / "jump" / "one" / "frame2.png")
    with pytest.raises(BadSampleError, match=r"frames differ in size, such as frame1\.png and frame2\.png"):
        stored.read([0, 1], None)


@pytest.mark.parametrize(
    "ordered",
    [
        [f"{number * 0.04}.png" for number in range(60)],  # 0.12, and 0.32 before 0.4
        [f"{number * 0.1}.jpg" for number in range(12)],  # 0.30000000000000004
        [f"at {number * 0.25}s.jpg" for number in range(44)],
        ["0.5.jpg", "10.25.jpg"],
        ["0.05.jpg", "0.2.jpg", "0.9.jpg"],
        [f"{number / 25:.2f}.png" for number in range(60)],
        [f"shot 1.{number}.png" for number in range(1, 13)],  # counts
        [f"{number // 12}.{number % 12}.png" for number in range(30)],
        [f"v1.5_{number}.png" for number in range(12)],
        ["a.png", "b.png"],
    ],
)
def test_frames_are_ordered_by_counts_or_by_seconds(ordered: list[str]) -> None:
    assert in_order(sorted(ordered, key=lambda name: name[::-1])) == ordered


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["1.9.png", "1.11.png"], r"names such as 1\.9\.png and 1\.11\.png may state counts or seconds"),
        (["1.jpg", "2.jpg", "cover.jpg"], r"cover\.jpg has no number, unlike 1\.jpg"),
        (["1.jpg", "01.png", "2.jpg"], "have the same number"),
        (
            ["flow_x_1.jpg", "flow_x_2.jpg", "img_1.jpg", "img_2.jpg"],
            r"flow_x_1\.jpg and img_1\.jpg have different text",
        ),
        (["-1.jpg", "0.jpg", "1.jpg"], "have different text before the number"),
        ([f"{number * 4e-5}.jpg" for number in range(4)], r"4e-05\.jpg has a number with an exponent"),
    ],
)
def test_frames_whose_order_is_uncertain_are_a_bad_sample(names: list[str], reason: str, tmp_path: Path) -> None:
    for name in names:
        Image.new("L", (8, 6)).save(tmp_path / name)
    with pytest.raises(BadSampleError, match=reason):
        FrameFolder(tmp_path, 25.0).read([0], None)


def test_images_give_still_clips_from_lists_and_from_folders_without_videos(tmp_path: Path) -> None:
    for name, grey in (("a/1.jpg", 50), ("a/2.png", 90), ("b/3.webp", 130)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (grey, grey, grey)).save(tmp_path / name)
    for whole_mb in (0, 8):
        options = ReadOptions(whole_mb=whole_mb, short_side=15)
        found = [open_source("folder", tmp_path, split, options) for split in SPLITS]
        assert found[0].classes == ("a", "b")
        samples = [source.samples[index] for source in found for index in range(len(source.samples))]
        assert sorted(sample.labels["class"] for sample in samples) == [0, 0, 1]
        for sample in samples:
            assert sample.inputs.info.frames == 1
            clip = sample.inputs.clip(lambda info: random_frames(info, 4, 2.0, Generator()), 15)
            assert clip.shape == (4, 3, 15, 20)
            assert clip.unique().numel() == 1
    (tmp_path / "c").mkdir()
    write_videos(tmp_path, ["c/4.mp4"])
    assert summary_of(open_source("folder", tmp_path, "train", LAZY).samples).noun == "videos"
    for part in ("train", "val", "test"):
        (tmp_path / f"{part}.csv").write_text("a/1.jpg 0\nb/3.webp 1\nc/4.mp4 1\n")
    listed = open_source("csv", tmp_path, "train", LAZY).samples
    assert [listed[index].inputs.info.frames for index in range(3)] == [1, 1, 3]
    note = "2 of the 3 listed files are images, which give still clips"
    assert note in summary_of(listed).notes


def test_flat_folders_of_frames_are_unlabelled(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 6), 7).save(tmp_path / name / "0.png")
    source = open_source("frames", tmp_path, "train", ReadOptions())
    assert (len(source.samples), source.classes) == (2, ())


def test_arrays_are_memory_mapped_and_may_be_grey(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(256, size=(5, 6, 8, 3), dtype=np.uint8)
    for name, array in (("a/x.npy", colour), ("b/y.npy", colour[..., 0]), ("b/z.npy", colour.astype(np.float32))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, array)
    (tmp_path / "b" / "zz.npy").write_bytes((tmp_path / "b" / "y.npy").read_bytes()[:-7])
    files = {}
    for split in SPLITS:
        samples = open_source("npy", tmp_path, split, ReadOptions(whole_mb=0)).samples
        files |= {samples.paths[i]: samples[i] for i in range(len(samples))}  # type: ignore[attr-defined]
    assert set(files) == {"a/x.npy", "b/y.npy", "b/z.npy", "b/zz.npy"}
    assert np.array_equal(files["a/x.npy"].inputs.read([4, 0], None).permute(0, 2, 3, 1), colour[[4, 0]])
    grey = pickle.loads(pickle.dumps(files["b/y.npy"].inputs)).read([2], None)
    assert np.array_equal(grey[0], np.repeat(colour[None, 2, ..., 0], 3, 0))
    assert [files[name].labels["class"] for name in sorted(files)] == [0, 1, 1, 1]
    with pytest.raises(BadSampleError, match=r"float32 \[5, 6, 8, 3\]; uint8"):
        files["b/z.npy"].inputs.info  # noqa: B018
    with pytest.raises(BadSampleError, match=r"not a complete \.npy file"):
        files["b/zz.npy"].inputs.info  # noqa: B018


def test_shards_of_videos_are_read_in_place(tmp_path: Path) -> None:
    for part, first in (("train", 0), ("val", 3), ("test", 6)):
        with tarfile.open(tmp_path / f"clips-{part}-0.tar", "w") as archive:
            for number in range(first, first + 3):
                for name, data in ((f"{number:03}.mp4", video(number)), (f"{number:03}.cls", b"%d" % (number % 2))):
                    (member := tarfile.TarInfo(name)).size = len(data)
                    archive.addfile(member, BytesIO(data))
    found = open_all(tmp_path, "webdataset")
    assert found["train"] == [(0, 0), (1, 1), (2, 0)]
    assert found["test"] == [(6, 0), (7, 1), (8, 0)]
    assert open_source("webdataset", tmp_path, "test", LAZY).classes == ("0", "1")
    inputs = open_source("webdataset", tmp_path, "test", LAZY).samples[0].inputs
    assert inputs.name == str(tmp_path / "clips-test-0.tar" / "006.mp4")


LISTS = {
    "space": "a.mp4 1\nin/b.mp4 0\nc d.mp4 1\n",
    "space and quotes": '"a.mp4" 1\nin/b.mp4 0\n"c d.mp4" 1\n',
    "tab": "a.mp4\t1\nin/b.mp4\t0\n\nc d.mp4\t1\n",
    "comma": 'a.mp4,1\n"in/b.mp4",0\nc d.mp4,1',
    "semicolon, Windows": "a.mp4;1\r\nin/b.mp4;0\r\nc d.mp4;1\r\n",
    "byte order mark": "\ufeffa.mp4,1\nin/b.mp4,0\nc d.mp4,1\n",
    "header": "label,split,video_path\n1,x,a.mp4\n0,x,in/b.mp4\n1,x,c d.mp4\n",
    "header of two": "video label\na.mp4 1\nin/b.mp4 0\nc d.mp4 1\n",
    "label first": "1\ta.mp4\n0\tin/b.mp4\n1\tc d.mp4\n",
    "names": "a.mp4,walk\nin/b.mp4,jump\nc d.mp4,walk\n",
    "no labels": "a.mp4\nin/b.mp4\nc d.mp4\n",
    "header, no labels": "path\na.mp4\nin/b.mp4\nc d.mp4\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_read_in_every_format(name: str, tmp_path: Path) -> None:
    write_videos(tmp_path, ["a.mp4", "in/b.mp4", "c d.mp4"])
    for part in ("train", "val", "test"):
        (tmp_path / f"{part}.csv").write_bytes(LISTS[name].encode())
    labels = [None] * 3 if "no labels" in name else [1, 0, 1]
    for root in (tmp_path, tmp_path / "test.csv"):
        for found in open_all(root, "csv").values():
            assert found == list(zip(range(3), labels, strict=True))
    classes = open_source("csv", tmp_path, "validation", LAZY).classes
    assert classes == (() if "no labels" in name else ("jump", "walk") if name == "names" else ("0", "1"))


def test_ids_in_lists_make_one_class_per_id_that_occurs_and_minus_one_is_unlabelled(tmp_path: Path) -> None:
    write_videos(tmp_path, ["a.mp4", "b.mp4", "c.mp4"])
    for part in ("train", "val", "test"):
        (tmp_path / f"{part}.csv").write_text("a.mp4 4000000000\nb.mp4 -1\nc.mp4 7\n")
    assert open_all(tmp_path, "csv")["test"] == [(0, 1), (1, None), (2, 0)]
    assert open_source("csv", tmp_path, "test", LAZY).classes == ("7", "4000000000")


def test_splits_are_carved_from_a_single_list_and_paths_may_be_absolute(tmp_path: Path) -> None:
    files = [f"{number}.mp4" for number in range(60)]
    write_videos(tmp_path / "videos", files)
    lines = [f"{tmp_path / 'videos' / file} {number % 2}" for number, file in enumerate(files)]
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "all.csv").write_text("\n".join(lines))
    found = open_all(tmp_path / "list", "csv")
    assert sorted(grey for split in SPLITS for grey, _ in found[split]) == list(range(60))
    assert found["train"]
    assert found["validation"] or found["test"]  # by the paths, which differ from run to run
    assert all(label == grey % 2 for split in SPLITS for grey, label in found[split])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train.csv": ""}, r"train\.csv lists no videos"),
        ({"train.csv": "path,label\n"}, r"train\.csv lists no videos"),
        ({"train.csv": "a.mp4,1,2\n"}, r"train\.csv has 3 columns: .*`path` and `label`"),
        ({"train.csv": "a.mp4,1\nb.mp4\n"}, r"train\.csv, line 1: 'a\.mp4,1' is not a video path"),
        ({"train.csv": "a.mp4 1\nb.mp4\n"}, r"train\.csv, line 2: 'b\.mp4' has 1 fields, the first 2"),
        ({"one.csv": "a.mp4 1", "two.csv": "a.mp4 1"}, r"one\.csv, two\.csv; several files"),
        ({"train.csv": "a.mp4 x", "test.csv": "a.mp4 y"}, r"test\.csv: label 'y'"),
        ({"train.csv": "a.mp4 1\nb.mp4 -1"}, r"train\.csv: the labels are -1 and 1"),
        ({"train.csv": "a.mp4 x", "test.csv": "a.mp4"}, r"test\.csv has no labels, unlike the training set"),
        ({"readme.txt": "nothing"}, r"no \.csv or \.tsv file in"),
    ],
)
def test_mistakes_in_lists_name_the_file_and_the_line(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises((ValueError, OSError), match=message):
        open_source("csv", tmp_path, "test", LAZY)


def test_only_small_videos_are_decoded_whole_and_cached(tmp_path: Path) -> None:
    (tmp_path / "short.mp4").write_bytes(video(7, frames=4))
    (tmp_path / "long.mp4").write_bytes(video(9, frames=60))
    megabytes = 10 * 3 * 24 * 32 / 2**20
    samples = open_source(
        "folder", tmp_path, "train", ReadOptions(decoder="pyav", short_side=24, whole_mb=megabytes)
    ).samples
    cached = SampleCache(samples, megabytes=1)
    long, short = cached[0].inputs, cached[1].inputs
    assert isinstance(long, EncodedVideo)
    assert isinstance(short, DecodedVideo)
    assert short.info == VideoInfo(4, 10.0, 24, 32)
    assert short.clip(lambda info: [info.frames - 1], 12).shape == (1, 3, 12, 16)
    assert sum(leaf.nbytes for leaf in tree_leaves(short) if isinstance(leaf, torch.Tensor)) == 4 * 3 * 24 * 32
    assert cached[1].inputs is short
    assert cached[0].inputs.info.frames == 60


def test_small_videos_are_not_decoded_whole_where_the_set_does_not_fit_into_the_cache(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.mp4").write_bytes(video(number, frames=4))
    options, whole = ReadOptions(decoder="pyav", short_side=24, whole_mb=8), 4 * 3 * 24 * 32
    samples = open_source("folder", tmp_path, "train", options).samples
    assert isinstance(SampleCache(samples, 0.6 * 20 * whole / 2**20)[3].inputs, DecodedVideo)
    stored = SampleCache(samples, 0.4 * 20 * whole / 2**20)[3].inputs
    assert isinstance(stored, EncodedVideo)
    assert torch.equal(stored.read([3, 1], 24), samples[3].inputs.read([3, 1], 24))


def test_a_broken_video_is_found_when_its_sample_is_read(tmp_path: Path) -> None:
    write_videos(tmp_path, ["a.mp4", "b.mp4"])
    (tmp_path / "b.mp4").write_bytes(b"<html>404</html>")
    samples = pickle.loads(pickle.dumps(open_source("folder", tmp_path, "train", PYAV).samples))
    assert contents([samples[0]]) == [(0, None)]
    with pytest.raises(BadSampleError, match="not a video of a known format") as caught:
        samples[1]
    assert caught.value.source == str(tmp_path / "b.mp4")


def test_an_empty_folder_and_a_missing_decoder_are_errors_on_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no videos below .*; looked for files ending in \.3g2, "):
        open_source("folder", tmp_path, "train", PYAV)
    monkeypatch.setattr("modalities.video.decode.video._missing", lambda decoder: f"No module named '{decoder}'")
    with pytest.raises(ValueError, match=r"decoder 'decord'.*No module named 'decord'"):
        open_source("folder", write_videos(tmp_path, ["a.mp4"]), "train", ReadOptions(decoder="decord"))
