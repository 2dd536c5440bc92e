"""The index of a data set: what is stored is what is found, and nothing is listed again unless the data has changed."""

import io
import os
import pickle
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa.data.index import open_data
from jepa.data.summary import digest, summary_of
from jepa.data_check import command
from jepa.disk import WriteError
from jepa.disk.columns import IndexFolder, read_columns, write_columns
from jepa.distributed import World
from jepa.probe.protocol import EvaluateConfig
from modalities.image.config import ImageConfig
from modalities.image.modality import Image
from modalities.image_text.captions.lists import open_lists as open_caption_lists
from modalities.storage import index, listing, shards
from modalities.storage.folders import open_folder
from modalities.storage.listing import FileKind
from modalities.storage.opened import Opened
from modalities.storage.packed import PackedStrings, TakenStrings
from modalities.storage.shards import open_shards
from modalities.storage.splits import StoredSplit
from modalities.video import lists
from modalities.video.lists import open_lists

KIND = FileKind("images", (".png",))
NAMES = [f"{'cat' if number % 3 else 'dög'}/{number:03}.png" for number in range(60)]


def data(root: Path, source: str) -> Path:
    """Images in class folders, a list of videos, or tar files, all older than a few seconds; and something else."""
    root.mkdir()
    if source == "list":
        (root / "all.csv").write_text("".join(f"{name[:-4]}.mp4,{name[0]}\n" for name in NAMES), encoding="utf-8")
    if source == "captions":
        lines = [f"{name}\ta {'word ' * number}\t{number % 3 or ''}\n" for number, name in enumerate(NAMES + NAMES[:9])]
        (root / "captions.tsv").write_text("image\tcaption\tlabel\n" + "".join(lines), encoding="utf-8")
        (root / "cat").mkdir()
        (root / "cat" / "001.png").touch()
    for shard in range(2) if source == "shards" else ():
        with tarfile.open(root / f"{shard}.tar", "w") as archive:
            for member in (f"{number}.{end}" for number in range(shard, 60, 2) for end in ("png", "cls")):
                header = tarfile.TarInfo(member)
                header.size = 1
                archive.addfile(header, io.BytesIO(b"1"))
    for name in NAMES if source == "folder" else ():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    (root / "notes.txt").write_text("")
    aged(root)
    return root


def content_of(content: bytes, name: str) -> bytes:
    return content


def pixels_of(path: Path) -> torch.Tensor:
    return torch.tensor(len(path.name))


def aged(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        os.utime(path, (1e9, path.stat().st_mtime - 3_600))


def opened(root: Path, source: str, place: IndexFolder | None = None) -> dict[str, StoredSplit]:
    cache = Opened(place)

    def of_split(split: Any) -> StoredSplit:
        if source == "folder":
            return open_folder(root, split, KIND, Path, 0, True, cache)
        if source == "list":
            return open_lists(root, split, {".mp4"}, Path, True, cache)
        if source == "captions":
            return open_caption_lists(root, split, pixels_of, True, cache)
        return StoredSplit(*open_shards(root, split, KIND, content_of, cache))

    return {split: of_split(split) for split in ("train", "validation", "test")}


def facts(found: dict[str, StoredSplit]) -> list[Any]:
    """Everything about the samples of all splits."""
    return [
        [classes, samples.digest(), summary_of(samples), [samples[number] for number in range(len(samples))]]  # type: ignore[attr-defined]
        for samples, classes in found.values()
    ]


def place(folder: Path, **settings: Any) -> IndexFolder:
    return IndexFolder(folder, writes=True, least=1, **settings)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is listed, or read to be indexed."""
    found: list[str] = []
    for module, name in ((listing, "_walk"), (shards, "index_of")):
        own: Any = getattr(module, name)
        monkeypatch.setattr(module, name, lambda path, *more, own=own: found.append(str(path)) or own(path, *more))
    original = lists.read_list
    monkeypatch.setattr(lists, "read_list", lambda path, *more: found.append(str(path)) or original(path, *more))
    return found


@pytest.mark.parametrize("source", ["folder", "list", "shards", "captions"])
def test_a_later_start_finds_the_same_without_reading_the_data(source: str, tmp_path: Path, reads: list[str]) -> None:
    root, folder = data(tmp_path / "data", source), tmp_path / "index"
    before = sorted(path.name for path in root.rglob("*"))
    expected = facts(opened(root, source))
    assert facts(opened(root, source, place(folder))) == expected
    reads.clear()
    later = opened(root, source, place(folder))
    assert facts(later) == facts(pickle.loads(pickle.dumps(later))) == expected
    follower = IndexFolder(folder, checks=False, used=[path.name for path in folder.iterdir()])
    assert facts(opened(root, source, follower)) == expected
    assert [path for path in reads if not path.endswith("data")] == []
    assert sorted(path.name for path in root.rglob("*")) == before
    assert len(pickle.dumps(later["train"].samples)) < 1_500  # a path, not the list of samples


@pytest.mark.parametrize("source", ["folder", "list", "shards"])
def test_changed_data_is_listed_again_and_said(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, folder = data(tmp_path / "data", source), tmp_path / "index"
    opened(root, source, place(folder))
    changes: list[Callable[[], object]] = {
        "folder": [
            lambda: (root / "cat" / "new.png").write_bytes(b""),
            lambda: (root / "cat" / "001.png").unlink(),
            lambda: (root / "cat" / "002.png").rename(root / "cat" / "b.png"),
            lambda: (root / "cat").rename(root / "lion"),
        ],
        "list": [lambda: (root / "all.csv").write_text("a.mp4,1\n" + "".join(f"{n}.mp4,2\n" for n in range(50)))],
        "shards": [lambda: (root / "1.tar").unlink(), lambda: (root / "0.tar").rename(root / "5.tar")],
    }[source]
    for change in changes:
        change()
        capsys.readouterr()
        assert facts(opened(root, source, place(folder))) == facts(opened(root, source))
        assert (
            "has changed since, or just before, the data was indexed, so it is listed again"
            in (printed := capsys.readouterr().err)
            or "number of files" in printed
        )
        assert printed.count("so it is listed again") == 1
        aged(root)
        opened(root, source, place(folder))


def test_a_change_within_the_coarse_clock_of_a_file_system_is_noticed(tmp_path: Path) -> None:
    root, folder = data(tmp_path / "data", "folder"), tmp_path / "index"
    os.utime(root / "cat")
    changed = (root / "cat").stat().st_mtime_ns
    opened(root, "folder", place(folder))
    (root / "cat" / "new.png").write_bytes(b"")
    os.utime(root / "cat", ns=(changed, changed))
    assert facts(opened(root, "folder", place(folder))) == facts(opened(root, "folder"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_index_is_said_and_written_again(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, folder = data(tmp_path / "data", "folder"), tmp_path / "index"
    expected = facts(opened(root, "folder", place(folder)))
    for path in folder.iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes({"cut": content[:-9], "flipped": content, "empty": b""}[damage])
    assert facts(opened(root, "folder", place(folder))) == expected
    assert capsys.readouterr().err.count("is damaged (") == 3
    assert facts(opened(root, "folder", place(folder))) == expected
    assert capsys.readouterr().err == ""


def test_a_writer_that_is_killed_leaves_nothing_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, folder = data(tmp_path / "data", "list"), tmp_path / "index"

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", full)
        with pytest.raises(WriteError, match="cannot be written: the disk is full"):
            opened(root, "list", place(folder))
    assert list(folder.iterdir()) == []
    name = index.Request("list", root, "train").file_name
    (folder / f"{name}.host-1.partial").write_bytes(b"JEPACOL1")
    assert facts(opened(root, "list", place(folder))) == facts(opened(root, "list"))


def test_strings_that_are_copied_piece_by_piece_are_written_as_a_whole_copy_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modalities.storage.packed._AT_ONCE", 7)
    strings = PackedStrings(f"{'é' * (number % 3)}{number}" for number in range(100))
    for mask in (torch.rand(100).numpy() < 0.5, torch.arange(100).numpy() > 60, torch.zeros(100).numpy() > 0):
        taken, whole = TakenStrings(strings, mask), strings.take(mask.nonzero()[0])
        assert (list(taken), len(taken)) == (list(whole), len(whole))
        text, ends = taken.buffers()
        write_columns(tmp_path / "strings", {}, {"text": text, "ends": ends})
        found = read_columns(tmp_path / "strings")[1]
        assert list(PackedStrings.of(found["text"], found["ends"])) == list(whole)
        assert digest(text, ends) == digest(*whole.buffers())
        assert text.whole().tobytes() == whole.text.tobytes()


def test_small_data_has_no_index(tmp_path: Path) -> None:
    opened(data(tmp_path / "data", "list"), "list", IndexFolder(tmp_path / "index", writes=True))
    assert not (tmp_path / "index").exists()


def test_jepa_data_index_is_used_by_runs_that_start_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reads: list[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = data(tmp_path / "data", "folder")
    assert command.main(["index", str(root), "--modality", "image"]) == 0
    assert f"MB in {tmp_path / 'cache'}" in capsys.readouterr().err
    reads.clear()
    image = Image(ImageConfig(source="folder", root=root))
    open_data(image, EvaluateConfig(), tmp_path / "run", World(0, 1, torch.device("cpu")))
    assert [path for path in reads if path != str(root)] == []
    assert len(list((tmp_path / "run" / "index").iterdir())) == len(list((tmp_path / "cache/openjepa/index").iterdir()))
