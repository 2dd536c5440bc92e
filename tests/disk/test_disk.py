"""A full disk and a file system without locks: one sentence, and nothing that was there is lost."""

import errno
import os
from pathlib import Path

import fork_server
import pytest
import torch
from full_disk import file_size_limit

from jepa.checkpoint import Checkpoint
from jepa.console import outside_cause
from jepa.console.output import warn_once
from jepa.data import BadFiles, read_bad_files
from jepa.disk import WriteError, write_text, writing
from jepa.disk.tensors import save_tensors
from modalities.storage.generated import reserve, write_once

SMALLEST = [
    *("model.size={width: 16, depth: 1, heads: 2}", "model.predictor={width: 16, depth: 1, heads: 2}", "steps=4"),
    *("optim.batch_size=4", "log_every=1", "checkpoint_every=1", "compute.precision=fp32", "compute.workers=1"),
    *("evaluate.enabled=false", "evaluate.report=false"),
]


def checkpoint(step: int, size: int) -> Checkpoint:
    return Checkpoint(step, 0.0, {}, {"weight": torch.zeros(size)}, {})


def test_a_checkpoint_that_does_not_fit_on_the_disk_keeps_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    checkpoint(1, 8).save(path)
    sentence = r"latest\.pt cannot be written: the system does not allow a file of this size$"
    with file_size_limit(50_000), pytest.raises(WriteError, match=sentence):
        checkpoint(2, 100_000).save(path)
    assert Checkpoint.load(path).step == 1
    assert [one.name for one in tmp_path.iterdir()] == ["latest.pt"]


def limited(run_dir: str, size: str, *settings: str) -> None:
    """A run whose files cannot grow beyond a size, for the fork server."""
    from jepa.launch import main

    with file_size_limit(int(size)):
        raise SystemExit(main(["--modality", "tiny:Noise", "--run-dir", run_dir, *settings]))


@pytest.mark.parametrize(("size", "file"), [(20_000, "latest.pt"), (300, "config.yaml")])
def test_a_run_on_a_full_disk_ends_with_one_sentence(size: int, file: str, tmp_path: Path) -> None:
    done = fork_server.run("call", __file__, "limited", str(tmp_path / "run"), str(size), *SMALLEST)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/run/")
    assert f"{file} cannot be written: the system does not allow" in last
    assert "Traceback" not in done.stderr
    if file == "latest.pt":
        assert "no checkpoint was written yet" in last
    assert not (tmp_path / "run" / "lock").exists()


def test_a_save_that_fails_ends_all_processes_with_its_sentence(tmp_path: Path) -> None:
    settings = [*SMALLEST, "steps=400"]
    done = fork_server.run_group(2, "call", __file__, "limited", str(tmp_path / "run"), "20000", *settings)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    sentence = f"{tmp_path}/run/checkpoints/latest.pt cannot be written: the system does not allow a file of this size"
    assert sorted(line.startswith(f"error: process 0 failed: {sentence}") for line in errors) == [False, True], done
    assert any(line.startswith(f"error: {sentence}; no checkpoint was written yet") for line in errors)


def test_generated_data_that_does_not_fit_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    def write(part: Path) -> None:
        (part / "data").write_bytes(b"0" * 1000)

    sentence = r"/generated cannot be written: the system does not allow a file of this size"
    with file_size_limit(500), pytest.raises(WriteError, match=sentence):
        write_once(tmp_path / "generated", write)
    assert [one.name for one in tmp_path.iterdir()] == ["generated.lock"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_found_behind_the_errors_of_libraries(code: int) -> None:
    def save() -> None:
        try:
            raise OSError(code, os.strerror(code), "/data/cache")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")

    with pytest.raises(RuntimeError) as caught:
        save()
    assert outside_cause(caught.value).startswith(("the disk is full: /data/cache", "the disk quota is used up: /data"))
    assert outside_cause(RuntimeError("a defect")) == ""
    in_loader = MemoryError("Caught MemoryError in DataLoader worker process 1.\nOriginal Traceback ...")
    assert outside_cause(in_loader).startswith("a loader process ran out of memory; set fewer compute.workers")
    killed = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    assert outside_cause(killed).startswith("a loader process (pid 7) was killed (signal: Killed)")


def test_files_of_names_that_are_not_utf8_are_written(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "caf\udce9\n", tmp_path / "a.partial")
    assert (tmp_path / "a.txt").read_text() == "caf\\udce9\n"


NAMES = [
    "a b.png",
    "caf\udce9.png",
    "line\nbreak.png",
    "tab\t.png",
    "\x85.png",
    "\ud800.png",
    '"quoted".png',
    "\\n.png",
]


def test_every_name_of_a_bad_file_is_one_line_and_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "bad_files.txt"
    for _ in range(2):
        BadFiles(path, 1000, 0.5).add([(name, "cut\nshort \udcff") for name in NAMES])
    assert read_bad_files(path) == [(name, r"cut short \xff") for name in NAMES]
    assert path.read_bytes().count(b"\n") == len(NAMES)
    assert b"caf\xe9.png\t" in path.read_bytes()  # as other programs expect it


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_where_there_are_no_locks_data_is_generated_once_or_twice_and_bad_files_are_listed(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, "not supported")

    def write(part: Path) -> None:
        (part / "data").touch()
        other = tmp_path / "data"  # another process is faster, and a third one is still at work
        other.mkdir()
        (other / "data").touch()
        (tmp_path / "data.part-third").mkdir()

    monkeypatch.setattr("fcntl.flock", flock)
    warn_once.cache_clear()
    assert (write_once(tmp_path / "data", write) / "data").exists()
    (tmp_path / "data.part-third").rmdir()
    assert write_once(tmp_path / "more", lambda part: (part / "data").touch()).is_dir()
    assert not list(tmp_path.glob("*.part-*"))
    for name in ("a.png", "b.png"):
        BadFiles(tmp_path / "bad_files.txt", 1000, 0.5).add([(name, "cut short")])
    assert len(read_bad_files(tmp_path / "bad_files.txt")) == 2
    said = capsys.readouterr().err
    assert said.count(f"warning: the file system of {tmp_path} has no locks") == 2
    for consequence in ("may each generate the same data", "a bad file may be listed twice"):
        assert said.count(consequence) == 1


def test_rendered_files_take_their_space_before_they_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    with path.open("wb") as file:
        file.truncate(100_000)
    assert path.stat().st_blocks == 0
    reserve(path)
    assert path.stat().st_blocks * 512 >= 100_000
    assert path.stat().st_size == 100_000


def test_a_file_of_safetensors_on_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    path, sentence = tmp_path / "full", "full cannot be written: the system does not allow a file of this size"
    with file_size_limit(1000), pytest.raises(WriteError, match=sentence), writing(path):
        save_tensors({"one": torch.ones(2000)}, path, {})


def test_others_may_read_a_file_of_safetensors_as_any_new_file(tmp_path: Path) -> None:
    save_tensors({"one": torch.ones(2)}, tmp_path / "one.safetensors", {})
    (tmp_path / "text").touch()
    assert (tmp_path / "one.safetensors").stat().st_mode == (tmp_path / "text").stat().st_mode
